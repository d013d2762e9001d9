"""The bytes of one weight layer on their way from source to sink: read ahead, and hashed as they pass.

Both ends may be cut, each without the other: sources go on by themselves (podkiln.sources); a sink that lost
some bytes asks for them by offset, and gets them from memory, or for a second time from the source.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Final

from podkiln import oci
from podkiln.errors import IntegrityError
from podkiln.sources import mismatch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from podkiln.bundle import Bundle
    from podkiln.oci import Descriptor, Digest
    from podkiln.sources import Access, Reading
    from podkiln.tarlayer import Entry

_AHEAD: Final = 4  # chunks that a source is read ahead
_BEHIND: Final = 4  # chunks that a hash may lag behind
_KEPT: Final = 16 << 20  # bytes that are kept for a registry that was cut: more than is ever under way


class WeightStream:
    """A weight layer as `registry.upload.Content`: its digest is known when its last bytes are given out.

    Those are only given out once each file has the sha256 that is locked. That is the gate: whoever takes the
    bytes never has the whole of a wrong layer.

    Args:
        bundle: The files.
        access: How their sources are spoken to.
        expected: The layer's digest, where the lock knows it already.
    """

    def __init__(self, bundle: Bundle, access: Access, expected: Digest | None = None) -> None:
        self.name = bundle.name
        self.fetched = 0  # bytes that came from the sources
        self._tar = bundle.layout
        self.size = self._tar.size
        self._weights = {weight.path: weight for weight in bundle.weights}
        self._access = access
        self._expected = expected
        self._readings: set[Reading] = set()
        self._aborted = False
        self._restart()

    @property
    def blob(self) -> Descriptor | None:
        """The layer, once all of it has passed and is right."""
        return self._blob

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the layer from an offset on. Raises SourceError; IntegrityError before the last bytes."""
        if offset > self._passed:
            raise IntegrityError(
                f"{self.name}: {offset} bytes are said to be there, {self._passed} were sent."
            )
        if offset == 0 and not self._keeps(0):
            self._close_pass()
            self._restart()
        yield from self._again(offset)
        yield from self._onward()

    def abort(self) -> None:
        """Wake whoever waits for a source, from another thread; the stream is of no use afterwards."""
        self._aborted = True
        for reading in list(self._readings):
            reading.abort()

    def close(self) -> None:
        """Give back connections and threads."""
        self._close_pass()

    def _restart(self) -> None:
        self._passed = 0
        self._blob: Descriptor | None = None
        self._recent: deque[bytes] = deque()
        self._recent_bytes = 0
        self._hashing = Hashing()
        self._pass = self._tar.chunks(self._checked)

    def _close_pass(self) -> None:
        self._hashing.close()
        self._pass.close()

    def _keeps(self, offset: int) -> bool:
        return offset >= self._passed - self._recent_bytes

    def _onward(self) -> Iterator[bytes]:
        """Yield what has not passed yet."""
        for chunk in self._pass:
            self._hashing.update(chunk)
            self._passed += len(chunk)
            self._remember(chunk)
            if self._passed == self.size:
                self._finish()
            yield chunk

    def _finish(self) -> None:
        digest = oci.Digest(f"sha256:{self._hashing.hexdigest()}")
        if self._expected not in (None, digest):
            raise IntegrityError(
                f"{self.name} makes the layer {digest}, but the lock says {self._expected}.",
                hint="The lock was changed by hand, or is damaged: take that layer out of it.",
            )
        self._blob = oci.Descriptor(oci.LAYER, digest, self.size)

    def _remember(self, chunk: bytes) -> None:
        self._recent.append(chunk)
        self._recent_bytes += len(chunk)
        while self._recent_bytes > _KEPT:
            self._recent_bytes -= len(self._recent.popleft())

    def _again(self, offset: int) -> Iterator[bytes]:
        """Yield what has passed already, from an offset on: from memory, or else from the source.

        What comes a second time is not hashed again: were it different, the sink would find another digest.
        """
        if self._keeps(offset):
            at = self._passed - self._recent_bytes
            for chunk in tuple(self._recent):
                if at + len(chunk) > offset:
                    yield chunk[max(0, offset - at) :]
                at += len(chunk)
            return
        left = self._passed - offset
        for chunk in self._tar.chunks(self._unchecked, offset):
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    def _checked(self, entry: Entry, _offset: int) -> Iterator[bytes]:
        """Yield a file; at its end it has the locked hash, or an IntegrityError is raised."""
        with closing(Hashing()) as hashing:
            for chunk in self._unchecked(entry, 0):
                hashing.update(chunk)
                yield chunk
            found = hashing.hexdigest()
        weight = self._weights[entry.path]
        if found != weight.sha256:
            raise mismatch(weight, found)

    def _unchecked(self, entry: Entry, offset: int) -> Generator[bytes]:
        reading = self._access.open(self._weights[entry.path], offset)
        self._readings.add(reading)
        if self._aborted:
            reading.abort()
        try:
            with closing(Ahead(reading)) as chunks:
                for chunk in chunks:
                    self.fetched += len(chunk)
                    yield chunk
        finally:
            self._readings.discard(reading)


class Ahead:
    """Reads a few chunks ahead in a thread, so that receiving and sending go on at the same time."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._ended = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="source")
        self._pending: deque[Future[bytes | None]] = deque()

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(_AHEAD):
            self._pending.append(self._pool.submit(self._next))
        while (chunk := self._pending.popleft().result()) is not None:
            self._pending.append(self._pool.submit(self._next))
            yield chunk

    def close(self) -> None:
        """Stop reading."""
        self._reading.abort()
        self._pool.shutdown(cancel_futures=True)
        self._reading.close()

    def _next(self) -> bytes | None:
        """Read a chunk; None when there are no more, and after a failure."""
        if self._ended:
            return None
        self._ended = True
        chunk = next(self._reading, None)
        self._ended = chunk is None
        return chunk


class Hashing:
    """A sha256 that is computed in a thread of its own, at most a few chunks behind."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._pending: deque[Future[None]] = deque()

    def update(self, chunk: bytes) -> None:
        """Take some bytes; waits when the hash is too far behind."""
        self._pending.append(self._pool.submit(self._hash.update, chunk))
        if len(self._pending) > _BEHIND:
            self._pending.popleft().result()

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far."""
        while self._pending:
            self._pending.popleft().result()
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(cancel_futures=True)
