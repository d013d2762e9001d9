"""Where a file grows: on the volume itself, or first on the container's disk when the volume is on a network.

A network volume takes one sequential writer well, and many that jump about badly; reading back what was
just written to hash it costs as much again. So there, a file grows on local disk, and the pass that hashes
it, in order while the rest arrives, also writes it to the volume: only the rename is left at the end. When
the container is gone, and its disk with it, the copy goes on as a part on the volume.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pod.downloads import disk_space, journaled_copy, part_journal
from pod.hardware import mounts
from pod.util import env, untrusted_files
from pod.util.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pod.downloads.part_journal import PartMetadata
    from pod.net.integrity import Block

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
class StagingPlan:
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
        value = env.staging(environment.get("FETCH_STAGING"))
        if value == "never" or (value == "auto" and not on_network(target)):
            return cls()
        if value == "auto":
            return cls(None if on_network(LOCAL) else LOCAL)
        return cls(Path(value))

    def growth(self, beside: Path, size: int | None, reserve: Callable[[Path, int], bool]) -> StagingPlan:
        """Decide for one file, whose part would be `beside` its place.

        `reserve` gets a folder and bytes, and promises them if they are there. A copy whose staged part is
        gone with its container becomes the part; so only the owner of the file's lease may ask.

        Raises OSError.
        """
        copy = beside.with_suffix(".copy")
        grown = None if beside.exists() else self._roomy(beside, size, reserve)
        if beside.exists():  # what arrived beside goes on there
            untrusted_files.remove(copy)
        elif not (grown and grown.exists()) and journaled_copy.adopt(copy, beside):
            grown = None
        else:
            part_journal.remove(copy)
        if grown is None:
            return StagingPlan(beside)
        return StagingPlan(grown, copy, f", staged in {grown.parent}")

    def _roomy(self, beside: Path, size: int | None, reserve: Callable[[Path, int], bool]) -> Path | None:
        """Return where a file can be staged, None where it cannot: that costs speed, not the file."""
        if self.folder is None or size is None:
            return None
        grown = self._staged(beside)
        try:
            grown.parent.mkdir(parents=True, exist_ok=True)
            there = grown.stat().st_blocks * 512 if grown.exists() else 0
            return grown if reserve(grown.parent, size - there + RESERVE) else None
        except OSError:
            return None

    def forget(self, beside: Path) -> None:
        """Remove what was staged of a file that another pod has brought meanwhile."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                part_journal.remove(self._staged(beside))

    def _staged(self, beside: Path) -> Path:
        if self.folder is None:
            return beside
        # Folders of one name lie below many others, and volumes may share a folder to stage in.
        mark = hashlib.sha256(os.fsencode(beside.absolute())).hexdigest()[:8]
        return self.folder / beside.parent.parent.name / f"{beside.stem}.{mark}{beside.suffix}"


def copied(blocks: Iterator[Block], path: Path, contents: PartMetadata) -> Iterator[Block]:
    """Hand blocks on, writing each to a file, which is on disk at the end.

    A journal beside it says how much of it is safe, for a start that finds it without its original: a
    container's own disk goes with the container. Raises OSError from what is read, RefusedError when it
    cannot be written.
    """
    with _refusing(path):
        trail = journaled_copy.JournaledCopy(path, contents)
    with contextlib.closing(trail):
        for block in blocks:
            with _refusing(path):
                trail.write(block)
            yield block
        with _refusing(path):
            trail.finish()


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Say which disk it is that does not take a copy: there are two. A full volume is not left full."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            part_journal.remove(path)
        raise disk_space.refusal(error, path) from None
