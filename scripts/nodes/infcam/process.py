"""InfCam's process: started in its own environment, listened to, and ended when the user stops the queue."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .pod_facts import NodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PYTHON = "PODKILN_INFCAM_PYTHON"
"""The interpreter of InfCam's environment, with upstream's pins; by default ComfyUI's own."""
MARK: Final = "podkiln:"
"""How a line of the process begins that is meant for the node; JSON follows."""
_LISTEN: Final = 0.5
_LAST_WORDS: Final = 40
_KEPT: Final = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "TRITON_CACHE_DIR",
    "PODKILN_INFCAM_DEVICE",
)
_KEPT_PREFIXES: Final = ("CUDA_", "NVIDIA_", "PYTORCH_", "OMP_")
_HERE: Final = Path(__file__).parent


def command(request: Path, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the command line of the process. Raises NodeError where its interpreter is missing."""
    python = environ.get(PYTHON) or sys.executable
    if not Path(python).is_file():
        raise NodeError(f"{PYTHON}={python} is no file: it names the Python of InfCam's environment.")
    return [python, "-u", "-s", "-P", "-m", "infcam_runner", str(request)]


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables of the process: no token, no package of ComfyUI's nodes, and no hub to ask."""
    kept = {
        name: value for name, value in environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    return {
        **kept,
        "PYTHONPATH": str(_HERE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def run(
    argv: list[str],
    environ: Mapping[str, str],
    folder: Path,
    progress: Callable[[int, int], None],
    interrupted: Callable[[], None],
) -> None:
    """Run the process to its end.

    Args:
        argv: Its command line.
        environ: All its variables.
        folder: Where it runs.
        progress: Told the steps done, and of how many.
        interrupted: Called every half second; what it raises ends the process, and is raised here.

    What it has started ends with it, and all of it with ComfyUI, whose end is that of its stdin
    (infcam_runner/parent.py). Raises NodeError, with the reason that it gave, where it did not succeed.
    """
    log = logging.getLogger(__name__)
    with subprocess.Popen(
        argv,
        cwd=folder,
        env=dict(environ),
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as child:
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(child, lines), daemon=True).start()
        said: deque[str] = deque(maxlen=_LAST_WORDS)
        why = None
        try:
            for line in _heard(child, lines):
                interrupted()
                message = _message(line)
                if "of" in message:
                    progress(int(message["done"]), int(message["of"]))
                elif "why" in message:
                    why = str(message["why"])
                elif line:
                    log.debug("InfCam: %s", line)
                    said.append(line)
            child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if child.returncode:
        log.error("InfCam's process said:\n%s", "\n".join(said))
        raise NodeError(why or _ending(child.returncode))


def _read(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in child.stdout or ():
        lines.put(line.rstrip())
    lines.put(None)


def _heard(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> Iterator[str]:
    """Yield each line, and an empty one where none came for a while."""
    while True:
        try:
            line = lines.get(timeout=_LISTEN)
        except queue.Empty:
            if child.poll() is not None:
                return  # what it has started holds its stdout open
            line = ""
        if line is None:
            return
        yield line


def _message(line: str) -> dict[str, Any]:
    """Return what a line tells the node; nothing where it is upstream's own talk."""
    if not line.startswith(MARK):
        return {}
    try:
        found = json.loads(line.removeprefix(MARK))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _ending(status: int) -> str:
    """Return a sentence for a process that ended without giving a reason."""
    if status == -9:  # noqa: PLR2004 - SIGKILL
        return "InfCam's process was killed, most likely because the pod's RAM ran out: it takes about 40 GB."
    return f"InfCam's process ended with status {status}: what it said is in ComfyUI's log."
