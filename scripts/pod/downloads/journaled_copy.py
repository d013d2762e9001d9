"""A copy that becomes a part: what a killed copy has brought to the volume need not be fetched again."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from pod.downloads import part_journal
from pod.downloads.partial_file import FLUSH
from pod.util import untrusted_files

if TYPE_CHECKING:
    from pathlib import Path

    from pod.downloads.part_journal import PartMetadata

_NO_SIZE = frozenset({errno.EFBIG, errno.EINVAL})  # no file can have that size there


class JournaledCopy:
    """A file that is written in order, as a copy is, and its journal: `adopt` makes both a part.

    Only what was flushed to disk is claimed; that happens every now and then. Raises OSError.
    """

    def __init__(self, path: Path, contents: PartMetadata) -> None:
        part_journal.remove(path)
        untrusted_files.make_folder(path.parent)
        self._contents = contents
        self._data = untrusted_files.open_plain(path, part_journal.NEW | os.O_WRONLY)
        self._journal = part_journal.create(part_journal.state(path), contents, [])
        self._written = 0
        self._claimed = 0  # chunks

    def write(self, block: bytes | memoryview) -> None:
        """Write the next bytes."""
        view = memoryview(block)
        while view:
            written = os.write(self._data, view)
            view = view[written:]
            self._written += written
        if self._written - self._claimed * self._contents.chunk >= FLUSH:
            self._claim(self._written // self._contents.chunk)

    def finish(self) -> None:
        """Bring all of it to disk."""
        self._claim(-(-self._written // self._contents.chunk))

    def close(self) -> None:
        """Let go of both files; they stay."""
        os.close(self._data)
        os.close(self._journal)

    def _claim(self, chunks: int) -> None:
        os.fdatasync(self._data)
        lines = [f"{chunk}\n" for chunk in range(self._claimed, chunks)]
        os.write(self._journal, "".join([*lines, f"={chunks}\n"]).encode())
        self._claimed = chunks


def adopt(copy: Path, path: Path) -> bool:
    """Make a part of a copy and its journal; False when nothing of it is safe. Raises OSError."""
    try:
        contents, arrived = part_journal.read(part_journal.state(copy))
        data = untrusted_files.open_plain(copy, os.O_RDWR)
    except (OSError, ValueError, TypeError, ArithmeticError):
        return False
    try:
        there = os.fstat(data).st_size
        if not arrived or any(min((n + 1) * contents.chunk, contents.size) > there for n in arrived):
            return False
        os.ftruncate(data, contents.size)
    except OSError as error:
        if error.errno in _NO_SIZE:
            return False
        raise
    finally:
        os.close(data)
    copy.replace(path)
    part_journal.state(copy).replace(part_journal.state(path))
    return True
