"""Whether there is an NVIDIA GPU, going by other witnesses than nvidia-smi: the kernel and the platform.

A pod that was rented with a GPU must not come up on the CPU because the GPU could not be asked.
"""

from __future__ import annotations

import os
import re

from pod.hardware import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEVICES = "/dev"
DRIVER = "/proc/driver/nvidia"
_NODE = re.compile(r"nvidia([0-9]+|ctl|-uvm|-caps)")
_WSL = "dxg"  # the one node that WSL 2 has for all cards (Microsoft, GPU paravirtualization)
_SMI = (
    "/usr/bin/nvidia-smi"  # where the NVIDIA container toolkit mounts the driver's, for who is given a card
)
_COUNT = re.compile(r"[0-9]{1,4}")
_NAMED = re.compile(r"(?:[0-9]|GPU-|MIG-|nvidia\.com/)")
# What RunPod and vast.ai set in every instance (their documentation, Environment variables). GPU_COUNT is too
# common a name to be believed anywhere but on vast.ai.
_COUNTS = (("RUNPOD_GPU_COUNT", None), ("GPU_COUNT", "VAST_CONTAINERLABEL"))


def witness(  # noqa: PLR0911 - one return a witness
    environ: Mapping[str, str],
    devices: str = DEVICES,
    driver: str = DRIVER,
    mounted: Sequence[mounts.Mount] | None = None,
) -> str | None:
    """Return the phrase that says why there should be a GPU here; None where nothing speaks for one.

    Args:
        environ: The pod's environment.
        devices: Where the kernel shows devices.
        mounted: What is mounted; None to ask.
        driver: Where the driver shows its cards. A container that was given none sees them there too.
    """
    nodes = sorted(name for name in _names(devices) if _NODE.fullmatch(name) or name == _WSL)
    if nodes:
        return f"{devices}/{nodes[0]} is there"
    for name, beside in _COUNTS:
        count = environ.get(name, "").strip()
        if _COUNT.fullmatch(count) and (beside is None or environ.get(beside)):
            return f"{name}={count} says that there is one" if int(count) else None
    given = environ.get("NVIDIA_VISIBLE_DEVICES", "").strip()
    if given.lower() in ("void", "none"):
        return None  # the machine may have some, and this container is to have none
    for name, value in (("NVIDIA_VISIBLE_DEVICES", given), ("CUDA_VISIBLE_DEVICES", _cuda(environ))):
        if _NAMED.match(value):
            return f"{name} names one"
    if any(mount.point == _SMI for mount in (mounts.read() if mounted is None else mounted)):
        return f"{_SMI} was given to this container with a driver"
    if _names(f"{driver}/gpus"):
        return f"{driver} shows one (was it given to this container, with --gpus all?)"
    return None


def _cuda(environ: Mapping[str, str]) -> str:
    return environ.get("CUDA_VISIBLE_DEVICES", "").strip()


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - pathlib costs 10 ms that a boot waits for
    except OSError:
        return []
