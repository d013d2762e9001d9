"""Memory while bench/gpu.py measures: VRAM held so that little is free, and the most that ComfyUI takes."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_kit.machine import python, smi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

HOLD = """
import sys, time, torch
free, _ = torch.cuda.mem_get_info()
block = torch.empty(int(free - float(sys.argv[1]) * 2**30), dtype=torch.uint8, device="cuda")
print("held", flush=True)
time.sleep(3600)
"""


class HeldError(Exception):
    """No process could take the VRAM that was to be held."""


@contextlib.contextmanager
def held(free_gib: float | None) -> Iterator[int]:
    """Hold VRAM so that only `free_gib` GiB stay free; yields the MiB in use before ComfyUI starts.

    Raises HeldError.
    """
    holder = None
    try:
        if free_gib is not None:
            holder = subprocess.Popen(
                [python(), "-c", HOLD, str(free_gib)], stdout=subprocess.PIPE, text=True
            )
            if holder.stdout is None or not holder.stdout.readline():
                raise HeldError(f"VRAM could not be held so that {free_gib} GiB stay free.")
        yield used()
    finally:
        if holder is not None:
            holder.kill()
            holder.communicate()


def used() -> int:
    """Return the MiB of VRAM that are in use; 0 where nobody tells."""
    with contextlib.suppress(ValueError, OSError, subprocess.CalledProcessError):
        return int(smi("memory.used"))
    return 0


class Peak(threading.Thread):
    """Polls the VRAM that ComfyUI holds beyond `base`, and its RAM without page cache; both in MiB."""

    def __init__(self, base: int) -> None:
        super().__init__(daemon=True)
        self.base, self.vram_mib, self.ram_mib = base, 0, 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Poll four times a second."""
        while not self._stop_asked.wait(0.25):
            self.vram_mib = max(self.vram_mib, used() - self.base)
            with contextlib.suppress(OSError):
                self.ram_mib = max(self.ram_mib, ram_of_comfyui())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_asked.set()
        self.join()


def ram_of_comfyui() -> int:
    """Return RssAnon + RssShmem of ComfyUI, MiB (proc(5)): of the largest process that runs main.py."""
    return max([size for _, size in _comfyui()], default=0)


def pid_of_comfyui() -> int | None:
    """Return ComfyUI's process id: of the largest process that runs main.py; None for none."""
    found = sorted(_comfyui(), key=lambda each: each[1])
    return found[-1][0] if found else None


def _comfyui() -> Iterator[tuple[int, int]]:
    """Yield the processes that run main.py, and their MiB."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and b"main.py" in (entry / "cmdline").read_bytes().split(b"\0"):
                status = (entry / "status").read_text(encoding="ascii", errors="replace")
                sizes = re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+)", status, re.MULTILINE)
                yield int(entry.name), sum(map(int, sizes)) // 1024
