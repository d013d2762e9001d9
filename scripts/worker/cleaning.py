"""Files of jobs that have been answered, taken out of ComfyUI's folders when they are old enough.

Only what a job of this worker made or brought goes: the folders may lie on a volume that pods share, and what
else is in them is people's own. ComfyUI may remember a node whose file went; job.py has that made anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pod import comfyui_http

if TYPE_CHECKING:
    from collections.abc import Callable

APART: Final = "job-files"
"""The folder of ComfyUI's `input` in which jobs that run beside each other have their files."""
_CLOCKS: Final = 2.0  # seconds that a file may seem older than it is: some file systems count in twos


class Cleaner:
    """What there is to take away.

    Args:
        keep: Seconds that a file stays after the last job that has to do with it; None for ever.
        clock: What time it is, in seconds since 1970, as files have it.
    """

    def __init__(self, keep: float | None = None, clock: Callable[[], float] = time.time) -> None:
        self._keep = keep
        self._clock = clock
        self._begun: dict[str, float] = {}
        self._open: dict[str, set[Path]] = defaultdict(set)  # by job
        self._left: dict[Path, float] = {}  # when the last job with it ended

    def begin(self, job: str) -> None:
        """Note that a job begins."""
        self._begun[job] = self._clock()

    def note(self, job: str, kind: str, name: str) -> None:
        """Note that an open job has to do with a file of ComfyUI's `input` or `output`: names are from there.

        One that was there before, and that no job of this worker made, is nobody's to take away.
        """
        folder = comfyui_http.value(f"--{kind}-directory", comfyui_http.arguments())
        if self._keep is None or not folder:
            return
        path = Path(folder, name)
        with contextlib.suppress(OSError, ValueError):
            status = path.lstat()
            inside = Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder))
            ours = status.st_mtime >= self._begun.get(job, self._clock()) - _CLOCKS or self._is_known(path)
            if inside and ours and stat.S_ISREG(status.st_mode):
                self._open[job].add(path)

    def _is_known(self, path: Path) -> bool:
        return path in self._left or any(path in files for files in self._open.values())

    async def end(self, job: str) -> None:
        """Note that a job has ended, and take away what is old enough. A disk that refuses keeps it."""
        self._begun.pop(job, None)
        now = self._clock()
        self._left |= dict.fromkeys(self._open.pop(job, ()), now)
        if self._keep is None:
            return
        used = set().union(*self._open.values())
        old = [path for path, since in self._left.items() if now - since >= self._keep and path not in used]
        for path in old:
            del self._left[path]
        if old:
            await asyncio.to_thread(_remove, old)


def _remove(files: list[Path]) -> None:
    for path in files:
        with contextlib.suppress(OSError):
            path.unlink()
            if path.parent.parent.name == APART:
                path.parent.rmdir()
