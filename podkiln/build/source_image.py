"""A source tree for BuildKit, in an image: the files that were hashed, as git has them, and no others.

A folder that BuildKit reads by itself obeys a .dockerignore in it and brings every nested .git, empty folders
and modes, of which the tree's hash says nothing. So what was given as a folder is packed: one layer in an OCI
layout, which BuildKit takes by its digest as a named context. It lies in the cache folder under the hash.

Sources: OCI image-spec v1.1 image-layout.md; docs.docker.com/build/bake/contexts ("oci-layout://").
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, Final

from pod.util import git_objects
from pod.util.git_objects import EXECUTABLE, LINK, BlobHash
from podkiln.canonical_layers import entries, image, writer
from podkiln.canonical_layers.entries import Entry
from podkiln.errors import IntegrityError, SourceError
from podkiln.oci import layout, spec
from podkiln.util import atomic, cache_folder, disk_space, git_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podkiln.oci.spec import Digest
    from podkiln.plan.substitutes import Substitute
    from podkiln.util.git_tree import SourceFile

log = logging.getLogger(__name__)
MAX_TREES: Final = 16  # that are kept; those used longest ago are removed first
_IN_USE: Final = 24 * 3600  # seconds in which a build may still read what it was given
_BLOCK: Final = 512


def context(substitute: Substitute, platform: str) -> str:
    """Return what BuildKit is told to take for a substitute; a folder is packed. Raises SourceError, OSError.

    `platform`: of the image that is built.
    """
    if substitute.folder is None:
        return substitute.context
    root = cache_folder.path() / cache_folder.SOURCES
    try:
        place, digest = pack(
            substitute.folder,
            substitute.actual,
            root,
            spec.Platform.parse(platform),
            dict(substitute.submodules),
        )
    except SourceError as wrong:
        raise SourceError(f"--source {substitute.name}: {wrong}", hint=wrong.hint) from None
    return f"oci-layout://{place}@{digest}"


def pack(
    folder: Path,
    tree: str,
    root: Path,
    platform: spec.Platform,
    submodules: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Path, Digest]:
    """Return the layout of a folder below `root`, and its image's digest.

    `submodules`: commits by path; what lies there is no part of it.

    It is written each time and compared with what lies there, since anybody may have changed that.

    Raises:
        SourceError: The folder cannot be read, or does not have the hash `tree` any more.
        PodkilnError: The disk is full.
        OSError: The disk does not take it.
    """
    place = root / tree
    with atomic.exclusive(place), tempfile.TemporaryDirectory(dir=root, prefix=".") as name:
        aside = Path(name) / "layout"
        blobs = aside / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        files = git_tree.files(folder, submodules)
        with (
            disk_space.room(root, sum(each.size for each in files)),
            (blobs / "layer").open("wb") as file,
        ):
            tar = _Tar(file)
            for each in files:
                tar.add(each)
            found, layer = tar.end(submodules)
        if found != tree:
            raise SourceError(
                f"{folder} changed since it was hashed: its tree was {tree[:12]}, and {found[:12]} when it "
                "was packed.",
                hint="Build again once it stays as it is.",
            )
        (blobs / "layer").rename(blobs / layer.digest.partition(":")[2])
        config = {
            "os": platform.os,
            "architecture": platform.architecture,
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        }
        digest = image.write_documents(aside, spec.canonical_json(config), [layer], platform)
        if not _holds(place, digest):
            shutil.rmtree(place, ignore_errors=True)
            aside.rename(place)
        os.utime(place)
        _prune(root)
    return place, digest


class _Tar:
    """A layer as it is written: hashed, and its files as git hashes them."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._hash = spec.hasher(spec.digest_of(b""))
        self._size = 0
        self._folders: set[bytes] = set()
        self._files: dict[str, tuple[bytes, bytes]] = {}

    def add(self, file: SourceFile) -> None:
        """Write a file, and the folders before it that were not written yet. Raises SourceError, OSError."""
        *folders, name = file.path.split(b"/")
        if any(part.startswith(entries.WHITEOUT) for part in (*folders, name)):
            raise SourceError(f"{file.place}: in an image, a name that begins with .wh. removes a file.")
        for depth in range(1, len(folders) + 1):
            folder = b"/".join(folders[:depth])
            if folder not in self._folders:
                self._folders.add(folder)
                self._put(writer.header(Entry(folder, entries.FOLDER, 0o755, 0, 0, 0)))
        hashed = BlobHash(file.size)
        if file.mode == LINK:
            target = b"".join(file.pieces())
            hashed.update(target)
            self._put(writer.header(Entry(file.path, entries.LINK, 0o777, 0, 0, 0, target=target)))
        else:
            mode = 0o755 if file.mode == EXECUTABLE else 0o644
            self._put(writer.header(Entry(file.path, entries.FILE, mode, 0, 0, 0, size=file.size)))
            for piece in file.pieces():
                hashed.update(piece)
                self._put(piece)
            self._put(bytes(-file.size % _BLOCK))
        self._files[os.fsdecode(file.path)] = (file.mode, hashed.digest())

    def end(self, submodules: Mapping[str, str]) -> tuple[str, spec.Descriptor]:
        """End it; return git's id of the tree that was written, and what the layer came to."""
        self._put(bytes(2 * _BLOCK))
        digest = spec.parse_digest(f"sha256:{self._hash.hexdigest()}")
        return git_objects.tree_id(self._files, submodules), spec.Descriptor(spec.LAYER, digest, self._size)

    def _put(self, data: bytes) -> None:
        self._hash.update(data)
        self._out.write(data)
        self._size += len(data)


def _holds(place: Path, digest: Digest) -> bool:
    """Tell whether a layout is there and whole that has this image."""
    try:
        return layout.read(place, full=True).descriptor.digest == digest
    except IntegrityError:
        return False


def _prune(root: Path) -> None:
    """Remove the trees that were used longest ago, and none that a build may still read."""
    used = {path: path.stat().st_mtime for path in root.glob("[!.]*")}
    for path in sorted(used, key=lambda path: -used[path])[MAX_TREES:]:
        if used[path] < time.time() - _IN_USE:
            shutil.rmtree(path, ignore_errors=True)
