"""The part of a file that has arrived: which chunks are safely on disk, across kill -9 and power cuts.

`<name>.part` has the file's full size from the start (sparse). `<name>.state` is a journal beside it: a line
of JSON that says what is being fetched, then the number of each chunk, one a line, appended only after the
chunk's bytes were flushed to disk. So no byte is claimed that is not written; a torn last line is no claim.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_READ = 1 << 20
_NEW = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class ClosedError(Exception):
    """The part was given up by another thread."""


@dataclass(frozen=True)
class Span:
    """Bytes `start` up to, not including, `stop`."""

    start: int
    stop: int


@dataclass(frozen=True)
class Contents:
    """What is being fetched; two answers may be mixed in one part only when this is equal.

    `identity` is what the server says that names the bytes (an ETag), `expected` the hash we want.
    """

    size: int
    chunk: int
    identity: str
    expected: str


class Part:
    """A file being put together by several threads."""

    def __init__(self, path: Path, contents: Contents, arrived: set[int], data: int, journal: int) -> None:
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
        self._arrived = arrived
        self.received = sum(map(self._length, arrived))  # bytes that need not be fetched again
        self._taken: set[int] = set()
        self._beginnings: dict[int, int] = {}  # bytes at the start of a chunk whose connection broke
        self._closed = False

    @classmethod
    def create(cls, path: Path, contents: Contents) -> Part:
        """Begin from nothing; what was there is removed. Raises OSError."""
        remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = os.open(path, _NEW | os.O_RDWR, 0o666)
        os.ftruncate(data, contents.size)
        journal = os.open(_state(path), _NEW | os.O_WRONLY | os.O_APPEND, 0o666)
        os.write(journal, json.dumps(asdict(contents)).encode() + b"\n")
        return cls(path, contents, set(), data, journal)

    @classmethod
    def recall(cls, path: Path) -> Part | None:
        """Take up what an earlier process left, or return None when there is nothing of use."""
        try:
            written = _state(path).read_bytes()
            head, *lines = written[: written.rindex(b"\n")].split(b"\n")
            contents = Contents(**json.loads(head))
            count = -(-contents.size // contents.chunk)
            if path.stat().st_size != contents.size:
                return None
            data = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            journal = os.open(_state(path), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except (OSError, ValueError, TypeError, ArithmeticError):
            return None
        os.ftruncate(journal, written.rindex(b"\n") + 1)  # "1" of a torn "17" must not become a claim
        arrived = {int(line) for line in lines if line.isdigit() and int(line) < count}
        return cls(path, contents, arrived, data, journal)

    @property
    def missing(self) -> int:
        """Bytes still to come."""
        return self.contents.size - self.received

    def take(self, length: int, *, wait: bool = False) -> Span | None:
        """Take the first missing bytes for the caller alone, about `length`; None when all are taken.

        With `wait`, block until there are some, or until all have arrived. Raises ClosedError.
        """
        with self._changed:
            while True:
                self._check()
                span = self._first(length)
                if span or not wait or len(self._arrived) == self._count:
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

    def arrive(self, chunk: int) -> None:
        """Claim a chunk whose bytes are all written, after flushing them. Raises OSError, ClosedError."""
        os.fdatasync(self._data)
        with self._changed:
            self._check()
            os.write(self._journal, b"%d\n" % chunk)
            self._arrived.add(chunk)
            self._taken.discard(chunk)
            self._beginnings.pop(chunk, None)
            self._changed.notify_all()

    def release(self, span: Span, reached: int) -> None:
        """Give back what was taken and has not arrived; bytes before `reached` are kept while we run."""
        with self._changed:
            size = self.contents.chunk
            for chunk in range(span.start // size, -(-span.stop // size)):
                if chunk in self._taken:
                    self._taken.discard(chunk)
                    if reached > chunk * size:
                        self._beginnings[chunk] = min(reached - chunk * size, size)
            self._changed.notify_all()

    def read(self, offset: int) -> bytes:
        """Return the next bytes that have arrived in unbroken order, waiting for them; empty at the end.

        Raises OSError, ClosedError.
        """
        with self._changed:
            while True:
                self._check()
                if offset >= self.contents.size:
                    return b""
                chunk = offset // self.contents.chunk
                if chunk in self._arrived:
                    break
                self._changed.wait()
        stop = chunk * self.contents.chunk + self._length(chunk)
        return os.pread(self._data, min(_READ, stop - offset), offset)

    def close(self) -> None:
        """Let every thread that uses this part end with ClosedError; the files stay."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def _count(self) -> int:
        return -(-self.contents.size // self.contents.chunk)

    def _length(self, chunk: int) -> int:
        return min(self.contents.chunk, self.contents.size - chunk * self.contents.chunk)

    def _check(self) -> None:
        if self._closed:
            raise ClosedError

    def _first(self, length: int) -> Span | None:
        size = self.contents.chunk
        busy = self._arrived | self._taken
        start = next((chunk for chunk in range(self._count) if chunk not in busy), None)
        if start is None:
            return None
        stop = start + 1
        closed = busy | self._beginnings.keys()
        while stop < self._count and stop not in closed and (stop - start) * size < length:
            stop += 1
        self._taken.update(range(start, stop))
        return Span(start * size + self._beginnings.get(start, 0), min(stop * size, self.contents.size))


def remove(path: Path) -> None:
    """Remove a part and its journal, if they are there."""
    path.unlink(missing_ok=True)
    _state(path).unlink(missing_ok=True)


def _state(path: Path) -> Path:
    return path.with_suffix(".state")
