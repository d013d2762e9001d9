"""`run`: start ComfyUI before anything else is loaded, and look after it until the end of the pod.

In an image that serves one model, its server is started in ComfyUI's place.

    run PARENT STOP_SECONDS COMMAND...

COMMAND gets the arguments that `decide` chose. PARENT is start.sh's process: what it and its services say
comes in on stdin, and it is asked to stop when ComfyUI cannot be kept alive (pod/supervisor/supervisor.py).
"""

from __future__ import annotations

import os
import signal

from pod.errors import INTERNAL, PodError
from pod.supervisor.process import ComfyProcess, ServerProcess
from pod.util import serving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns the pod's exit code. Raises PodError."""
    parent, stop_seconds, *command = arguments
    run = environ.get("PODKILN_RUN", "/run/podkiln")
    argv = [*command, *chosen(run)]
    # Python runs handlers in the main thread only, and not before a call that it waits in is over. What comes
    # to a file descriptor wakes another thread at once. And what a shell starts in the background is deaf to
    # SIGINT, which is ComfyUI's clean stop: a handler of ours ends that.
    called, calling = os.pipe()
    os.set_blocking(calling, False)
    signal.set_wakeup_fd(calling, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    life = start(argv, run, environ)
    from pod.supervisor.supervisor import Supervisor  # noqa: PLC0415 - ComfyUI is not kept waiting for it

    return Supervisor(argv, int(parent), float(stop_seconds), environ).keep(life, called)


def chosen(run: str) -> list[str]:
    """Return the arguments that `decide` wrote, each followed by a NUL byte. Raises PodError."""
    path = f"{run}/comfyui.args"
    try:
        # Names of files may be any bytes.
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:  # noqa: PTH123 - pathlib costs 10 ms here
            return file.read().split("\0")[:-1]
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}): `decide` writes it, run /start.sh."
        raise PodError(message, INTERNAL) from None


def start(argv: Sequence[str], run: str, environ: Mapping[str, str]) -> ComfyProcess | ServerProcess:
    """Start ComfyUI, or the server of a model. Raises PodError where that is impossible."""
    try:
        return ComfyProcess(argv, run) if serving.has_comfyui(environ) else ServerProcess(argv, run)
    except OSError as error:
        raise PodError(f"{argv[0]} cannot be started ({error.strerror}).", INTERNAL) from None
