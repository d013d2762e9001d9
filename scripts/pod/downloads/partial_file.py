"""The part of a file that has arrived: what need not be fetched again, after kill -9 and after power cuts.

`<name>.part` has the file's full size from the start (sparse). A journal beside it says which chunks have
arrived (pod.downloads.part_journal).
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from pod.downloads import part_journal
from pod.util import untrusted_files
from pod.util.dataclass import dataclass

if TYPE_CHECKING:
    from pathlib import Path

    from pod.downloads.part_journal import PartMetadata

FLUSH = 64 << 20  # bytes that arrive between two flushes


class ClosedError(Exception):
    """The part was given up by another thread."""


@dataclass(frozen=True)
class ByteRange:
    """Bytes `start` up to, not including, `stop`."""

    start: int
    stop: int


class PartialFile:
    """A file being put together by several threads."""

    def __init__(
        self, path: Path, contents: PartMetadata, arrived: list[int], data: int, journal: int
    ) -> None:
        self.contents = contents
        self.path = path
        self._data = data
        self._journal = journal
        for descriptor in (
            data,
            journal,
        ):  # closed with the last thread that holds this part, not under its feet
            weakref.finalize(self, os.close, descriptor)
        self._changed = threading.Condition()
        self._arrived = set(arrived)
        self.received = sum(map(self._length, self._arrived))  # bytes that need not be fetched again
        self._taken: set[int] = set()
        self._lines = self._flushed = len(arrived)
        self._beginnings: dict[int, int] = {}  # bytes at the start of a chunk whose connection broke
        self._closed = False

    @classmethod
    def create(cls, path: Path, contents: PartMetadata) -> PartialFile:
        """Begin from nothing; what was there is removed. Raises OSError."""
        part_journal.remove(path)
        untrusted_files.make_folder(path.parent)
        data = untrusted_files.open_plain(path, part_journal.NEW | os.O_RDWR)
        os.ftruncate(data, contents.size)
        return cls(path, contents, [], data, part_journal.create(part_journal.state(path), contents, []))

    @classmethod
    def recall(cls, path: Path) -> PartialFile | None:
        """Resume what an earlier process left; None when nothing of it can be used."""
        try:
            contents, arrived = part_journal.read(part_journal.state(path))
            data = untrusted_files.open_plain(path, os.O_RDWR)
        except (OSError, ValueError, TypeError, ArithmeticError):
            return None
        try:
            if os.fstat(data).st_size != contents.size:
                raise ValueError("another size")  # noqa: TRY301 (as everything else that cannot be used)
            os.fdatasync(data)  # from now on all of it is flushed, under whichever kernel it was written
            aside = part_journal.state(path).with_suffix(".state.new")
            untrusted_files.remove(aside)
            journal = part_journal.create(aside, contents, arrived)
            aside.replace(part_journal.state(path))
        except (OSError, ValueError):
            os.close(data)
            return None
        return cls(path, contents, arrived, data, journal)

    @property
    def missing(self) -> int:
        """Bytes still to come."""
        return self.contents.size - self.received

    @property
    def free(self) -> int:
        """Chunks that no thread fetches yet."""
        return self._count - len(self._arrived) - len(self._taken)

    def take(self, length: int, *, wait: bool = False) -> ByteRange | None:
        """Take the first missing bytes for the caller alone, about `length`; None when all are taken.

        With `wait`, block until there are some, or until all have arrived. Raises ClosedError.
        """
        with self._changed:
            while True:
                self._check()
                span = self._first(length)
                if span or not wait or not self._unarrived:
                    return span
                self._changed.wait()

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes in their place. Raises OSError, ClosedError."""
        self._check()
        while data:
            written = os.pwrite(self._data, data, offset)
            offset, data = offset + written, data[written:]
            with self._changed:
                self.received += written

    def mark_complete(self, chunk: int) -> None:
        """Mark a chunk whose bytes are all written as complete. Raises OSError, ClosedError."""
        with self._changed:
            self._check()
            os.write(self._journal, b"%d\n" % chunk)
            self._lines += 1
            self._arrived.add(chunk)
            self._taken.discard(chunk)
            self._beginnings.pop(chunk, None)
            self._changed.notify_all()

    def flush(self) -> None:
        """Bring all that has arrived to disk, and note that it is there. Raises OSError."""
        with self._changed:
            lines = self._lines
        os.fdatasync(self._data)
        with self._changed:
            os.write(self._journal, b"=%d\n" % lines)
            self._flushed = lines

    def keep_flushing(self) -> None:
        """Flush every now and then, until all has arrived. Raises OSError, ClosedError."""
        step = max(1, FLUSH // self.contents.chunk)
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._lines >= self._flushed + step or not self._unarrived
                )
                self._check()
                if not self._unarrived:
                    return
            self.flush()

    def release(self, span: ByteRange, reached: int) -> None:
        """Give back what was taken and has not arrived; bytes before `reached` are kept while we run."""
        with self._changed:
            size = self.contents.chunk
            for chunk in range(span.start // size, -(-span.stop // size)):
                if chunk in self._taken:
                    self._taken.discard(chunk)
                    if reached > chunk * size:
                        self._beginnings[chunk] = min(reached - chunk * size, size)
            self._changed.notify_all()

    def read(self, offset: int, buffer: memoryview) -> int:
        """Read the next bytes that have arrived in unbroken order, waiting for them; returns 0 at the end.

        Raises OSError, ClosedError.
        """
        if offset >= self.contents.size:
            return 0
        chunk = offset // self.contents.chunk
        with self._changed:
            self._changed.wait_for(lambda: self._closed or chunk in self._arrived)
            self._check()
        stop = chunk * self.contents.chunk + self._length(chunk)
        return os.preadv(self._data, [buffer[: stop - offset]], offset)

    def close(self) -> None:
        """Let every thread that uses this part end with ClosedError; the files stay."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def _count(self) -> int:
        return -(-self.contents.size // self.contents.chunk)

    @property
    def _unarrived(self) -> int:
        return self._count - len(self._arrived)

    def _length(self, chunk: int) -> int:
        return min(self.contents.chunk, self.contents.size - chunk * self.contents.chunk)

    def _check(self) -> None:
        if self._closed:
            raise ClosedError

    def _first(self, length: int) -> ByteRange | None:
        size = self.contents.chunk
        arrived, taken = self._arrived, self._taken
        if not self.free:
            return None
        start = next(chunk for chunk in range(self._count) if chunk not in arrived and chunk not in taken)
        stop = start + 1
        while (
            stop < self._count
            and (stop - start) * size < length
            and not (stop in arrived or stop in taken or stop in self._beginnings)
        ):
            stop += 1
        taken.update(range(start, stop))
        return ByteRange(start * size + self._beginnings.get(start, 0), min(stop * size, self.contents.size))
