"""How ComfyUI ended, in words: its exit code or the signal, whether memory ran out, and what it said last."""

from __future__ import annotations

import os
import re
import resource
import signal
from pathlib import Path

from pod.hardware import memory
from pod.util import serving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_TAIL = 16384  # bytes
MAX_QUOTED = 300  # characters of a quoted line
_TRACEBACK = "Traceback (most recent call last):"
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ERROR = re.compile(r"^[\w./-]+: error: |^[\w.]*(Error|Exception|Interrupt)(:|$)")


class Tail:
    """The end of what a program has printed."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> None:
        """Take what was printed."""
        self._data = (self._data + data)[-_TAIL:]

    def reason(self) -> str:
        """Return the line that says why it ended: of the last traceback, or of argparse; or nothing."""
        text = _COLOUR.sub("", self._data.decode("utf-8", "replace"))
        lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]
        if _TRACEBACK in text:
            last = max(number for number, line in enumerate(lines) if _TRACEBACK in line)
            lines = lines[last + 1 :]
            found = [line for line in lines if not line.startswith((" ", "\t"))][:1]
        else:
            found = [line for line in lines if _ERROR.match(line)][-1:]
        line = "".join(found)
        return line if len(line) <= MAX_QUOTED else f"{line[:MAX_QUOTED]}…"


def exit_code(status: int) -> int:
    """Return the exit code that a shell would give for what Popen.returncode says."""
    return status if status >= 0 else 128 - status


def words(status: int, said: str, kills: int, environ: Mapping[str, str] = os.environ) -> str:
    """Say how a process ended.

    Args:
        status: Popen.returncode.
        said: The line in which it said why.
        kills: How many processes of this pod were killed for memory meanwhile.
        environ: Where memory is read.
    """
    if status == -signal.SIGKILL:
        return _killed(kills, environ)
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        plain = f"exit code {exit_code(status)}, {name}"
    else:
        plain = f"exit code {status}"
    return f"{plain}: {said}" if said else plain


def _killed(kills: int, environ: Mapping[str, str]) -> str:
    plain = "exit code 137, SIGKILL"
    if not kills:
        return f"{plain}: something killed it, and the pod's control group counts no lack of memory"
    found = memory.read(
        Path(environ.get("PODKILN_CGROUP_ROOT", memory.CGROUP_ROOT)),
        Path(environ.get("PODKILN_MEMINFO", memory.MEMINFO)),
    )
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    program, cure = "ComfyUI", "smaller models, COMFYUI_ARGS=--cache-none or a pod with more RAM help"
    if not serving.has_comfyui(environ):
        program, cure = "the model server", "a smaller model, a smaller DTYPE or a pod with more RAM helps"
    return (
        f"{plain}: out of memory, as the pod may use {found.total_mib or 0} MiB of RAM "
        f"and {program} had {most} MiB; {cure}"
    )


def memory_kills(environ: Mapping[str, str] = os.environ) -> int:
    """Count the processes of this pod that were killed for memory so far.

    Source: the kernel's cgroup-v2.rst, memory.events; cgroup-v1/memory.rst, memory.oom_control.
    """
    root = Path(environ.get("PODKILN_CGROUP_ROOT", memory.CGROUP_ROOT))
    for name in ("memory.events", "memory/memory.oom_control"):
        try:
            rows = dict(line.split()[:2] for line in (root / name).read_text().splitlines() if " " in line)
            return int(rows["oom_kill"])
        except (OSError, LookupError, ValueError):
            continue
    return 0
