"""The folders that a user gives ComfyUI to write to: paths as meant, and whether they outlive the pod.

ComfyUI takes these values as they stand: no shell fills in `~` or `$HOME`, and what is relative begins at
its own folder, which ends with the container.
"""

from __future__ import annotations

import os

from pod.flags.arguments import RefusedError
from pod.hardware import mounts
from pod.util.finding import WARNING, Finding
from pod.util.printable import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pod.flags.arguments import FlagUse, ParsedArgs
    from pod.volume.volume import Volume

_WRITTEN = (
    "--output-directory",
    "--input-directory",
    "--user-directory",
    "--temp-directory",
    "--base-directory",
)
_KEPT = tuple(name for name in _WRITTEN if name != "--temp-directory")
_KERNELS = ("/proc", "/sys")
_COMFYUI = "/opt/ComfyUI"  # where start.sh starts it


def check(given: Sequence[FlagUse], where: str) -> None:
    """Refuse impossible values, and paths that can never be folders. Raises RefusedError."""
    for one in given:
        if one.flag.name not in _WRITTEN or not one.values:
            continue
        value, name = one.values[0], one.flag.name
        if not value.strip():
            raise RefusedError(
                f"{where}: {name} is empty: give a path, such as /workspace/out, or leave it out."
            )
        if value.startswith("~") or "$" in value:
            raise RefusedError(
                f"{where}: {name}: {shown(value)!r} is used as it is, and ~ and $ are not expanded: write "
                "the path in full."
            )
        path = os.path.normpath(os.path.join(_COMFYUI, value))  # noqa: PTH118
        if path.startswith(tuple(f"{each}/" for each in _KERNELS)) or path in _KERNELS or _in_file(path):
            raise RefusedError(
                f"{where}: {name}: {shown(value)!r} cannot be a folder to write to: name another, such as "
                "/workspace/out."
            )


def outside(
    user: ParsedArgs, volume: Volume, mounted: Sequence[mounts.Mount] | None = None
) -> Iterator[Finding]:
    """Yield warnings of folders of the user's that end with the container although there is a volume."""
    here = mounts.read() if mounted is None else mounted
    if mounts.holding(here, volume.root) is None:
        return
    for one in user.given:
        if one.flag.name in _KEPT and one.values:
            path = os.path.normpath(os.path.join(_COMFYUI, one.values[0]))  # noqa: PTH118
            if mounts.holding(here, path) is None:
                yield Finding(
                    WARNING,
                    "volume",
                    f"COMFYUI_ARGS: {one.flag.name} is {shown(path)}, which is outside of the volume: what "
                    "lies there ends with this container",
                )


def _in_file(path: str) -> bool:
    """Tell whether a path, or the first part of it that exists, is not a folder; mounts are skipped."""
    if mounts.holding(mounts.read(), path) is not None:
        return False
    while not os.path.lexists(path):
        path = os.path.dirname(path)  # noqa: PTH120
    return not os.path.isdir(path)  # noqa: PTH112
