"""What ComfyUI would compute on: the CPU, or what nvidia-smi shows. No GPU and no --cpu ends the boot.

Source: comfy/model_management.py of ComfyUI 0.33.0, and torch 2.11.0's own words.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

_QUERY = ["nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"]
_NO_DRIVER = (
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver "
    "from http://www.nvidia.com/Download/index.aspx"
)


def ram() -> tuple[int, int]:
    """Return the machine's RAM and what is free of it, in bytes: no cgroup is looked at."""
    page = os.sysconf("SC_PAGE_SIZE")
    return os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page


def find(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return /system_stats' devices. Raises RuntimeError where torch would."""
    if args.cpu:
        total, free = ram()
        return [_device("cpu", "cpu", None, total, free)]
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=10, check=False)
        rows = [line.split(", ") for line in done.stdout.splitlines()]
    except OSError:
        rows = []
    cards = [row for row in rows if len(row) == 3 and row[0].isdigit()]
    if not cards:
        raise RuntimeError(_NO_DRIVER)
    return [_cuda(*row) for row in cards]


def _cuda(index: str, name: str, mib: str) -> dict[str, Any]:
    total = int(mib) << 20 if mib.isdigit() else ram()[0]
    return _device(f"cuda:{index} {name} : cudaMallocAsync", "cuda", int(index), total, total)


def _device(name: str, kind: str, index: int | None, total: int, free: int) -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "index": index,
        "vram_total": total,
        "vram_free": free,
        "torch_vram_total": total if kind == "cpu" else 0,
        "torch_vram_free": free if kind == "cpu" else 0,
    }
