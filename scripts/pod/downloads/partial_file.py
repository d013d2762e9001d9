"""The part of a file that has arrived: what need not be fetched again, after kill -9 and after power cuts.

`<name>.part` has the file's full size from the start (sparse). `<name>.state` is a journal beside it: a line
of JSON that says what is being fetched and under which kernel, then the number of each chunk, one a line,
appended once its bytes are written; `=N` means that the first N of them were flushed to disk. The kernel
keeps what a killed process wrote, so under the same one every line is a claim; under another one, after a
power cut or on another host of a network volume, only what was flushed is. A torn last line does not count.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading
import weakref
from typing import TYPE_CHECKING

from pod.util import bounded_json, untrusted_files
from pod.util.dataclass import asdict, dataclass
from pod.util.file_lease import boot_id

if TYPE_CHECKING:
    from pathlib import Path

_FLUSH = 64 << 20  # bytes that arrive between two flushes
_NEW = os.O_CREAT | os.O_EXCL
_LARGEST_JOURNAL = 16 << 20  # bytes; a file of 1 TB in chunks of 8 MiB has lines of 1 MB
_LARGEST_FILE = 1 << 50  # bytes
_MOST_CHUNKS = 1 << 17  # of a file: 1 TiB in chunks of 8 MiB
# What a request may carry (RFC 9110, 5.5) and a hub's hash; anybody can write a journal on a shared volume.
_IDENTITY = re.compile(r"[ -~\x80-\xff]{0,1024}")
_EXPECTED = re.compile(r"[a-z0-9]{0,16}:?[0-9a-f]{0,128}")


_NO_SIZE = frozenset({errno.EFBIG, errno.EINVAL})  # no file can have that size there


class ClosedError(Exception):
    """The part was given up by another thread."""


@dataclass(frozen=True)
class ByteRange:
    """Bytes `start` up to, not including, `stop`."""

    start: int
    stop: int


@dataclass(frozen=True)
class PartMetadata:
    """What is being fetched; two answers may be mixed in one part only when this is equal.

    `identity` is what the server says that names the bytes (an ETag), `expected` the hash we want.
    """

    size: int
    chunk: int
    identity: str
    expected: str


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
        remove(path)
        untrusted_files.make_folder(path.parent)
        data = untrusted_files.open_plain(path, _NEW | os.O_RDWR)
        os.ftruncate(data, contents.size)
        return cls(path, contents, [], data, _new_journal(_state(path), contents, []))

    @classmethod
    def recall(cls, path: Path) -> PartialFile | None:
        """Resume what an earlier process left; None when nothing of it can be used."""
        try:
            contents, arrived = _read_journal(_state(path))
            data = untrusted_files.open_plain(path, os.O_RDWR)
        except (OSError, ValueError, TypeError, ArithmeticError):
            return None
        try:
            if os.fstat(data).st_size != contents.size:
                raise ValueError("another size")  # noqa: TRY301 (as everything else that cannot be used)
            os.fdatasync(data)  # from now on all of it is flushed, under whichever kernel it was written
            aside = _state(path).with_suffix(".state.new")
            untrusted_files.remove(aside)
            journal = _new_journal(aside, contents, arrived)
            aside.replace(_state(path))
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
        step = max(1, _FLUSH // self.contents.chunk)
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


class JournaledCopy:
    """A file that is written in order, as a copy is, and its journal: `adopt` makes both a part.

    Only what was flushed to disk is claimed; that happens every now and then. Raises OSError.
    """

    def __init__(self, path: Path, contents: PartMetadata) -> None:
        remove(path)
        untrusted_files.make_folder(path.parent)
        self._contents = contents
        self._data = untrusted_files.open_plain(path, _NEW | os.O_WRONLY)
        self._journal = _new_journal(_state(path), contents, [])
        self._written = 0
        self._claimed = 0  # chunks

    def write(self, block: bytes | memoryview) -> None:
        """Write the next bytes."""
        view = memoryview(block)
        while view:
            written = os.write(self._data, view)
            view = view[written:]
            self._written += written
        if self._written - self._claimed * self._contents.chunk >= _FLUSH:
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
        contents, arrived = _read_journal(_state(copy))
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
    _state(copy).replace(_state(path))
    return True


def _new_journal(path: Path, contents: PartMetadata, arrived: list[int]) -> int:
    """Write a journal and return its descriptor, open to append."""
    journal = untrusted_files.open_plain(path, _NEW | os.O_WRONLY | os.O_APPEND)
    lines = [json.dumps({**asdict(contents), "kernel": boot_id()}), *map(str, arrived)]
    if arrived:
        lines.append(f"={len(arrived)}")
    os.write(journal, "".join(f"{line}\n" for line in lines).encode())
    return journal


def _read_journal(path: Path) -> tuple[PartMetadata, list[int]]:
    """Read what is being fetched, and the chunks that are safe. Raises OSError, ValueError, TypeError."""
    written = untrusted_files.read_plain(path, _LARGEST_JOURNAL)
    head, *lines = written[: written.rindex(b"\n")].split(b"\n")
    fields = bounded_json.parse(head)
    kernel = fields.pop("kernel", "") if isinstance(fields, dict) else ""
    contents = PartMetadata(**fields)
    _check(contents)
    count = -(-contents.size // contents.chunk)
    claims = [line for line in lines if not line.startswith(b"=")]
    if not kernel or kernel != boot_id():
        marks = [int(line[1:]) for line in lines if line.startswith(b"=") and line[1:].isdigit()]
        claims = claims[: max(marks, default=0)]
    chunks = [int(line) for line in claims if line.isdigit()]
    return contents, list(dict.fromkeys(chunk for chunk in chunks if chunk < count))


def _check(contents: PartMetadata) -> None:
    """Check what a journal says, each field by its type. Raises ValueError."""
    size, chunk = contents.size, contents.chunk
    if not (type(size) is int and 0 <= size <= _LARGEST_FILE and type(chunk) is int and chunk > 0):
        raise ValueError("sizes that are none")
    if size > chunk * _MOST_CHUNKS:
        raise ValueError("more chunks than a file is fetched in")
    for text, form in ((contents.identity, _IDENTITY), (contents.expected, _EXPECTED)):
        if not (isinstance(text, str) and form.fullmatch(text)):
            raise ValueError("an identity or a hash that is none")


def remove(path: Path) -> None:
    """Remove a part and its journal, if they are there. Raises PlantedError for a folder, OSError."""
    for each in (path, _state(path).with_suffix(".state.new"), _state(path)):
        untrusted_files.remove(each)


def _state(path: Path) -> Path:
    return path.with_suffix(".state")
