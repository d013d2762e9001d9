"""Memory while bench/gpu.py measures: VRAM held so that little is free, and the most that ComfyUI takes."""

from __future__ import annotations

import contextlib
import re
import select
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_kit import smi
from gpu_kit.paths import python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

HOLD = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
block = torch.empty(int(free - float(sys.argv[1]) * 2**30), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()  # until whoever wants it held has ended, by whatever signal
"""
HOLD_SECONDS = 60.0  # to import torch, start CUDA and take the memory
_USED_SECONDS = 5.0


class HeldError(Exception):
    """No process could take the VRAM that was to be held."""


@contextlib.contextmanager
def held(free_gib: float | None) -> Iterator[int | None]:
    """Hold VRAM so that only `free_gib` GiB stay free; yields the MiB in use before ComfyUI starts.

    None where nobody tells that. Raises HeldError.
    """
    if free_gib is None:
        yield used()
        return
    command = [python(), "-c", HOLD, str(free_gib)]
    pipe = subprocess.PIPE
    holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace")
    try:
        if not _says_so(holder):
            holder.kill()
            last = (holder.communicate()[1].strip().splitlines() or ["nothing"])[-1]
            raise HeldError(f"VRAM could not be held so that {free_gib:g} GiB stay free: {last}")
        yield used()
    finally:
        holder.kill()
        holder.communicate()


def _says_so(holder: subprocess.Popen[str]) -> bool:
    """Wait for the line that says that the memory is held."""
    if holder.stdout is None or not select.select([holder.stdout], [], [], HOLD_SECONDS)[0]:
        return False
    return holder.stdout.readline().startswith("held")


def used() -> int | None:
    """Return the MiB of VRAM that are in use; None where nobody tells."""
    with contextlib.suppress(smi.MachineError):
        return smi.mib("memory.used", _USED_SECONDS)
    return None


class Peak(threading.Thread):
    """Polls the VRAM that ComfyUI holds beyond `base`, and its RAM without page cache; both in MiB.

    `vram_mib` is None where nobody tells it.
    """

    def __init__(self, base: int | None) -> None:
        super().__init__(daemon=True)
        self.base, self.ram_mib = base, 0
        self.vram_mib: int | None = None
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Poll four times a second."""
        while not self._stop_asked.wait(0.25):
            if self.base is not None and (now := used()) is not None:
                self.vram_mib = max(self.vram_mib or 0, now - self.base)
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
