"""How much RAM this pod really has: the smaller of the machine's and the control group's.

ComfyUI 0.33.0 asks psutil, which sees the machine alone; inside a pod with a limit it plans with memory that
it does not have and is killed for it (Comfy-Org/ComfyUI issue 14938).
"""

from __future__ import annotations

from pathlib import Path

from pod.util.dataclass import dataclass

CGROUP_ROOT = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
OWN_CGROUP = Path("/proc/self/cgroup")

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Memory:
    """RAM in MiB: `host_mib` the machine's, `limit_mib` the control group's where that is smaller."""

    host_mib: int | None
    limit_mib: int | None

    @property
    def total_mib(self) -> int | None:
        """What this pod may use; None when it could not be read."""
        return self.limit_mib if self.limit_mib is not None else self.host_mib

    @property
    def limited(self) -> bool:
        """Whether a control group grants less than the machine has: what ComfyUI 0.33.0 does not see."""
        return self.limit_mib is not None


def read(root: Path = CGROUP_ROOT, meminfo: Path = MEMINFO, own: Path = OWN_CGROUP) -> Memory:
    """Read the machine's RAM and the limits of version 2 and version 1 control groups."""
    host = _host_bytes(meminfo)
    limits = [limit for limit in _limits(root, own) if host is None or limit < host]
    return Memory(
        host_mib=None if host is None else host // _MIB,
        limit_mib=min(limits) // _MIB if limits else None,
    )


def _host_bytes(meminfo: Path) -> int | None:
    for line in _text(meminfo).splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            kib = value.removesuffix("kB").strip()
            return int(kib) * 1024 if kib.isdecimal() else None
    return None


def _limits(root: Path, own: Path) -> list[int]:
    """All limits that hold for us: a group may use no more than any of its parents.

    Version 2 writes "max" for no limit (kernel, cgroup-v2.rst, memory.max). Version 1 writes a huge number,
    which drops out because it is more than the machine has (cgroup-v1/memory.rst, memory.limit_in_bytes).
    """
    found = []
    for line in ["0::/", "0:memory:/", *_text(own).splitlines()]:  # the root too: our path may not be mounted
        _, _, controllers_and_path = line.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        if controllers == "":
            found += _walk(root, path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _walk(root / "memory", path, "memory.limit_in_bytes")
    return found


def _walk(root: Path, path: str, name: str) -> list[int]:
    group = root / path.lstrip("/")
    if ".." in group.parts:  # seen from a namespace below the group that we are in
        group = root
    found = []
    for directory in [group, *group.parents]:
        if directory != root and root not in directory.parents:
            break
        value = _text(directory / name).strip()
        if value.isdecimal() and int(value) > 0:
            found.append(int(value))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
