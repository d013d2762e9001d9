"""What a command takes while it runs: the memory of it and all its children, the growth of some folders."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_EACH_SECONDS = 0.25  # each look takes milliseconds from what it looks at


@dataclass
class Taken:
    """Seconds of a command, and bytes of memory and disk at most; `left`: bytes of disk at its end."""

    seconds: float = 0.0
    memory: int = 0
    disk: int = 0
    left: int = 0
    status: int = 0
    output: str = ""


def watch(argv: Sequence[str | Path], env: Mapping[str, str], folders: Sequence[Path], log: Path) -> Taken:
    """Run a command and watch it; disk is what the folders hold beyond what they held before."""
    taken, before = Taken(), used(folders)
    ended = threading.Event()
    begun = time.monotonic()
    with log.open("wb") as out:
        words = [str(word) for word in argv]
        process = subprocess.Popen(words, env={**os.environ, **env}, stdout=out, stderr=out)
        watcher = threading.Thread(target=_look, args=(process.pid, folders, before, taken, ended))
        watcher.start()
        try:
            taken.status = process.wait()
        finally:
            process.kill()
            taken.seconds = time.monotonic() - begun
            ended.set()
            watcher.join()
    taken.left = used(folders) - before
    taken.disk = max(taken.disk, taken.left)
    taken.output = log.read_text(errors="replace")
    return taken


def _look(pid: int, folders: Sequence[Path], before: int, taken: Taken, ended: threading.Event) -> None:
    while not ended.wait(_EACH_SECONDS):
        figures = [_memory(each) for each in tree(pid)]
        now, ever = sum(now for now, _ in figures), max((ever for _, ever in figures), default=0)
        taken.memory = max(taken.memory, now, ever)
        taken.disk = max(taken.disk, used(folders) - before)


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all that descend from it."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def _memory(pid: int) -> tuple[int, int]:
    """Return the bytes that a process holds, and the most that it ever held (proc(5): Pss and VmHWM).

    Pss, since that can be added up: what several share is counted once. One that is at its end has neither.
    """
    with contextlib.suppress(OSError, IndexError):
        files = Path(f"/proc/{pid}/smaps_rollup").read_text(), Path(f"/proc/{pid}/status").read_text()
        pss, hwm = (
            int(text.partition(f"\n{name}:")[2].split()[0]) << 10
            for text, name in zip(files, ("Pss", "VmHWM"), strict=True)
        )
        return pss, hwm
    return 0, 0


def used(folders: Sequence[Path]) -> int:
    """Return the bytes of disk that some folders take, as `du` counts them."""
    total, seen = 0, set()
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):  # gone meanwhile
                    found = os.lstat(os.path.join(place, name))  # noqa: PTH118 - half as fast with Path
                    if found.st_ino not in seen:
                        seen.add(found.st_ino)
                        total += found.st_blocks * 512
    return total
