"""Get source trees: from an archive that is kept, or else from the host, and only if they are what is locked.

An archive is kept as it came, `FOLDER/COMMIT.tar.gz`, on the volume where that can be written. At each start
it is unpacked anew into a folder of the container's, compared there, and patched: so what ComfyUI imports has
been looked at, whoever can write to the volume, and what a node writes beside its files changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pod.net.http import RefusedError, TransientError
from pod.net.hubs import Request
from pod.net.transfer_policy import ThroughputMonitor, TransferBackoff
from pod.source_trees import archive, leftovers, patches
from pod.source_trees.archive import ArchiveError, UnreadableError
from pod.source_trees.source_tree import archive_url
from pod.util import git_objects, untrusted_files
from pod.util.dataclass import dataclass, replace
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from pod.net.transfer_policy import TransferPolicy
    from pod.source_trees.source_tree import SourceTree

LARGEST = 1 << 30  # bytes of an archive
_CHUNK = 1 << 18
_SHORTEST = 0.05  # seconds: a socket with none would not wait at all


class SourceTreeError(Exception):
    """A tree that cannot be had; the message goes on after its name."""


@dataclass(frozen=True)
class SourceTrees:
    """Where trees come from, and where archives are kept.

    `kept` are folders with archives, in the order in which they are looked at; what comes is put into the
    first that can be written. `github` stands for https://github.com. `note` takes a sentence about a wait.
    After `deadline`, by time.monotonic(), nothing more comes from a host.
    """

    kept: Sequence[Path]
    github: str
    policy: TransferPolicy
    note: Callable[[str], None]
    deadline: float
    largest: int = LARGEST

    def get(self, source: SourceTree, target: Path) -> bool:
        """Put a tree into a folder, in place of what is there; return whether it had to be fetched.

        Raises SourceTreeError; then there is nothing at `target`.
        """
        shutil.rmtree(target, ignore_errors=True)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Beside the folder of nodes, and not in it: ComfyUI looks into all that is there.
            with leftovers.unpacking(target.parent.parent) as aside:
                made = Path(aside, "tree")
                fetched = self._put(source, made)
                _patch(source, made)
                made.rename(target)
        except OSError as error:
            raise SourceTreeError(f"cannot be unpacked to {target} ({error.strerror or error})") from None
        return fetched

    def _put(self, source: SourceTree, folder: Path) -> bool:
        """Put a tree and its submodules into a new folder."""
        fetched = self._one(source, folder)
        for each in source.submodules:
            place = folder / each.path
            place.rmdir()  # the empty folder that an archive has for it
            fetched = self._put(each.tree, place) or fetched
        return fetched

    def _one(self, source: SourceTree, folder: Path) -> bool:
        if source.tree is None:
            raise SourceTreeError("is not locked, so nothing could be compared with what comes")
        name = f"{source.commit}.tar.gz"
        for place in self.kept:
            try:
                descriptor = untrusted_files.open_plain(place / name, os.O_RDONLY)
            except OSError:
                continue
            with os.fdopen(descriptor, "rb") as file:
                try:
                    _unpack(source, file, folder)
                except ArchiveError as wrong:
                    self.note(f"{place / name} {wrong}, so it is fetched again")
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):  # the volume may be read-only, or the file another's
                        os.utime(file.fileno())  # it is in use: leftovers.expire
                    return False
        self._fetch(source, folder, name)
        return True

    def _fetch(self, source: SourceTree, folder: Path, name: str) -> None:
        """Fetch an archive, unpack it, and keep it only if it is what is locked. Raises SourceTreeError.

        A place that does not keep it is the one failure that the next place cures.
        """
        failed = "there is no place for it"
        for place in self.kept:
            try:
                with untrusted_files.replacing(place / name) as descriptor:
                    self._download(source, descriptor)
                    with os.fdopen(os.dup(descriptor), "rb") as file:
                        file.seek(0)
                        self._compared(source, file, folder)
            except UnreadableError as unreadable:
                failed = f"it {unreadable}"
            except OSError as error:
                failed = error.strerror or f"{error}"
            else:
                return
            shutil.rmtree(folder, ignore_errors=True)
        raise SourceTreeError(f"cannot be kept anywhere ({failed})")

    def _compared(self, source: SourceTree, file: BinaryIO, folder: Path) -> None:
        """Unpack what has come. Raises UnreadableError, SourceTreeError."""
        try:
            _unpack(source, file, folder)
        except UnreadableError:
            raise
        except ArchiveError as wrong:
            raise SourceTreeError(f"is not used: {archive_url(source, self.github)} {wrong}") from None
        except OSError as error:
            raise SourceTreeError(f"cannot be unpacked ({error.strerror or error})") from None

    def _download(self, source: SourceTree, descriptor: int) -> None:
        """Write an archive to a file, from its beginning as often as it takes. Raises SourceTreeError."""
        request = Request(archive_url(source, self.github), source.repo)
        left = max(0.0, self.deadline - time.monotonic())
        policy = replace(self.policy, wait_limit=min(self.policy.wait_limit, left))
        patience = TransferBackoff(policy, threading.Event(), self.note)
        reason = ""
        while True:
            if time.monotonic() >= self.deadline:
                raise SourceTreeError(
                    f"did not come in the time that a start waits for all{reason}; "
                    "`python3 -I -S /opt/podkiln nodes --fetch` tries again, and ComfyUI loads it when it "
                    "starts again"
                )
            try:
                return self._transfer(request, descriptor)
            except TransientError as error:
                reason = f" ({error})"
                try:
                    patience.wait(error)
                except RefusedError as exhausted:
                    raise SourceTreeError(str(exhausted)) from None
            except RefusedError as refused:
                raise SourceTreeError(str(refused)) from None

    def _transfer(self, request: Request, descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        # Each hop may wait that long for itself: what is left bounds a connection and an answer's head.
        left, limits = max(_SHORTEST, self.deadline - time.monotonic()), self.policy.limits
        limits = replace(limits, connect=min(limits.connect, left), read=min(limits.read, left))
        with request.send(limits) as answer:
            answer.hurry(max(0.0, self.deadline - time.monotonic()))
            monitor = ThroughputMonitor(self.policy, answer.host, lambda: 0.0)
            buffer = memoryview(bytearray(_CHUNK))
            written = 0
            while count := answer.receive(buffer):
                monitor.took(count)
                written += count
                if written > self.largest:
                    raise RefusedError(f"is larger than {self.largest >> 20} MiB, as no tree of code is")
                _write(descriptor, buffer[:count])
            if answer.response.length:
                raise TransientError(f"{answer.host}: the connection closed before the end")


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _unpack(source: SourceTree, file: BinaryIO, folder: Path) -> None:
    """Unpack an archive and compare it. Raises ArchiveError."""
    folder.mkdir()
    entries = archive.unpack(file, folder)
    submodules = {each.path: each.tree.commit for each in source.submodules}
    for path in submodules:
        above = {str(each) for each in PurePosixPath(path).parents}
        if above & entries.keys() or not (folder / path).is_dir() or any((folder / path).iterdir()):
            raise ArchiveError(f"has no empty folder {shown(path, 80)} for a submodule")
    found = git_objects.tree_id(entries, submodules)
    if found != source.tree:
        raise ArchiveError(f"holds the tree {found}, and {source.tree} is locked")


def _patch(source: SourceTree, folder: Path) -> None:
    for number, patch in enumerate(source.patches, start=1):
        try:
            patches.apply(folder, patch.encode())
        except patches.PatchError as wrong:
            raise SourceTreeError(f"is not used: its patch {number} {wrong}") from None
