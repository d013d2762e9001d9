"""Where a file grows: on the volume itself, or first on the container's disk when the volume is on a network.

A network volume takes one sequential writer well, and many that jump about badly; reading back what was
just written to hash it costs as much again. So there, a file grows on local disk, and the pass that hashes
it, in order while the rest arrives, also writes it to the volume: only the rename is left at the end.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pod.failure import SETTING_MALFORMED, PodError
from pod.fetching import part
from pod.machine import mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pod.fetching.contents import Block

LOCAL = Path("/var/tmp/podkiln")  # noqa: S108 (the container's own disk; names are ours, and nobody else is in here)
RESERVE = 2_000_000_000  # bytes of local disk that are left to others: a full container disk stops everything
_NETWORK = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "glusterfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "wekafs",
    }
)
_LOCAL_FUSE = frozenset({"fuseblk", "fuse.fuse-overlayfs", "fuse.overlayfs", "fuse.lxcfs"})


def on_network(path: Path) -> bool:
    """Tell whether a path lies on a file system that is reached over a network (mfs and JuiceFS are FUSE)."""
    mount = mounts.holding(mounts.read(), str(path.absolute()))
    kind = mount.kind if mount else ""
    return kind in _NETWORK or (kind.startswith("fuse") and kind not in _LOCAL_FUSE)


@dataclass(frozen=True)
class Growth:
    """Where a file grows (`part`), and its copy when that lies elsewhere; `where` ends a sentence."""

    part: Path
    copy: Path | None = None
    where: str = ""


@dataclass(frozen=True)
class Staging:
    """The folder where files grow first, None to let each grow beside its place."""

    folder: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], target: Path) -> Staging:
        """Read FETCH_STAGING: auto, never, or a folder. Raises PodError."""
        value = environment.get("FETCH_STAGING", "").strip() or "auto"
        if value == "never" or (value == "auto" and not on_network(target)):
            return cls()
        if value == "auto":
            return cls(None if on_network(LOCAL) else LOCAL)
        if not value.startswith("/") or ".." in Path(value).parts:
            raise PodError(
                f"FETCH_STAGING={value!r} is none of auto and never, and no absolute path: "
                "name a folder on a local disk, or unset it",
                SETTING_MALFORMED,
            )
        return cls(Path(value))

    def growth(self, beside: Path, size: int | None, reserve: Callable[[Path, int], bool]) -> Growth:
        """Decide for one file, whose part would be `beside` its place.

        `reserve` gets a folder and bytes, and promises them if they are there. A copy that a dead pod left is
        removed; so only the owner of the file's claim may ask. Raises OSError.
        """
        beside.with_suffix(".copy").unlink(missing_ok=True)
        if self.folder is None or size is None or beside.exists():  # what arrived beside goes on there
            return Growth(beside)
        grown = self._staged(beside)
        folder = grown.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            there = grown.stat().st_blocks * 512 if grown.exists() else 0
            if not reserve(folder, size - there + RESERVE):
                return Growth(beside)
        except OSError:
            return Growth(beside)  # a local disk that cannot be used costs speed, not the file
        return Growth(grown, beside.with_suffix(".copy"), f", staged in {folder}")

    def forget(self, beside: Path) -> None:
        """Remove what was staged of a file that another pod has brought meanwhile."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                part.remove(self._staged(beside))

    def _staged(self, beside: Path) -> Path:
        return self.folder / beside.parent.parent.name / beside.name if self.folder else beside


def copied(blocks: Iterator[Block], path: Path) -> Iterator[Block]:
    """Hand blocks on, writing each to a file, which is on disk at the end.

    Raises OSError; the file is removed then, and when somebody stops asking for blocks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as handle:
            for block in blocks:
                handle.write(block)
                yield block
            handle.flush()
            os.fsync(handle.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
