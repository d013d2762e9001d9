"""The bytes of one weight layer on their way from source to sink: read ahead, and hashed as they come.

Both ends may be cut, each without the other: sources go on by themselves (podkiln.weights.source); a sink
that lost some bytes asks for them by offset, and gets them from memory, or for a second time from the source.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import closing, contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from podkiln.errors import IntegrityError
from podkiln.oci import spec
from podkiln.weights.sha256 import hashes
from podkiln.weights.source import CHUNK, mismatch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from podkiln.oci.spec import Descriptor, Digest
    from podkiln.oci.tar_layer import Chunk, Entry
    from podkiln.plan.weight_layers import WeightFile, WeightLayerSpec
    from podkiln.weights.sha256 import LayerHasher
    from podkiln.weights.source import ByteSource, SourceClient

READ_AHEAD_CHUNKS: Final = 3  # chunks that a source is read ahead
REPLAY_BUFFER_BYTES: Final = (
    8 << 20
)  # bytes that are kept for a registry that was cut: more than is mostly under way


class WeightLayerStream:
    """A weight layer as `registry.upload.BlobSource`: its digest is known when its last bytes are given out.

    Those are only given out once each file has the sha256 that is locked. So a consumer
    never gets the whole of a wrong layer.

    Args:
        bundle: The files.
        access: Access to their sources.
        expected: The layer's digest, where the lock knows it already.
    """

    def __init__(self, bundle: WeightLayerSpec, access: SourceClient, expected: Digest | None = None) -> None:
        self.name = bundle.name
        self.fetched = 0  # bytes that came from the sources
        self._tar = bundle.layout
        self.size = self._tar.size
        self._weights = {weight.path: weight for weight in bundle.weights}
        self._access = access
        self._expected = expected
        self._readings: set[ByteSource] = set()
        self._buffers = BufferPool()
        self._aborted = False
        self._restart()

    @property
    def blob(self) -> Descriptor | None:
        """The layer, once all of it has passed and is right."""
        return self._blob

    def chunks(self, offset: int = 0) -> Iterator[Chunk]:
        """Yield the layer from an offset on. Raises SourceError; IntegrityError before the last bytes."""
        if offset > self._replay.end:
            raise IntegrityError(
                f"{self.name}: {offset} bytes are expected to be there, but {self._replay.end} were sent."
            )
        if offset == 0 and self._replay.begin > 0:
            self._close_pass()
            self._restart()
        yield from self._again(offset)
        yield from self._onward()

    def abort(self) -> None:
        """End a blocked read of a source, from another thread; the stream cannot be used afterwards."""
        self._aborted = True
        for reading in list(self._readings):
            reading.abort()

    def close(self) -> None:
        """Give back connections and threads."""
        self._close_pass()

    def _restart(self) -> None:
        self._blob: Descriptor | None = None
        self._replay = ReplayBuffer(self._buffers)
        self._hashes = hashes()
        self._in_file = False
        self._pass = self._tar.chunks(self._checked)

    def _close_pass(self) -> None:
        self._pass.close()

    def _onward(self) -> Iterator[Chunk]:
        """Yield what has not passed yet."""
        for chunk in self._pass:
            (self._hashes.passed if self._in_file else self._hashes.frame)(chunk)
            self._replay.append(chunk)
            if self._replay.end == self.size:
                self._finish()
            yield chunk

    def _finish(self) -> None:
        digest = spec.Digest(f"sha256:{self._hashes.layer()}")
        if self._expected not in (None, digest):
            raise IntegrityError(
                f"{self.name} makes the layer {digest}, but the lock says {self._expected}.",
                hint="The lock was changed by hand, or is damaged: take that layer out of it.",
            )
        self._blob = spec.Descriptor(spec.LAYER, digest, self.size)

    def _again(self, offset: int) -> Iterator[Chunk]:
        """Yield what has passed already, from an offset on: from memory, or else from the source.

        What comes a second time is not hashed again: were it different, the sink would find another digest.
        """
        if offset >= self._replay.begin:
            yield from self._replay.since(offset)
            return
        left = self._replay.end - offset
        for chunk in self._tar.chunks(self._unchecked, offset):
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    def _checked(self, entry: Entry, _offset: int) -> Iterator[Chunk]:
        """Yield a file; at its end it has the locked hash, or an IntegrityError is raised."""
        weight = self._weights[entry.path]
        self._hashes.begin()
        with self._ahead(weight, 0, self._hashes) as chunks:
            self._in_file = True
            yield from self._counted(chunks)
            self._in_file = False
        found = self._hashes.file()
        if found != weight.sha256:
            raise mismatch(weight, found)

    def _unchecked(self, entry: Entry, offset: int) -> Generator[Chunk]:
        with self._ahead(self._weights[entry.path], offset) as chunks:
            yield from self._counted(chunks)

    def _counted(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self.fetched += len(chunk)
            yield chunk

    @contextmanager
    def _ahead(
        self, weight: WeightFile, offset: int, hashing: LayerHasher | None = None
    ) -> Generator[ReadAhead]:
        reading = self._access.open(weight, offset)
        self._readings.add(reading)
        if self._aborted:
            reading.abort()
        try:
            with closing(ReadAhead(reading, self._buffers, hashing)) as chunks:
                yield chunks
        finally:
            self._readings.discard(reading)


class ReplayBuffer:
    """The last bytes that passed, at most REPLAY_BUFFER_BYTES, from offset `begin` to `end` of the layer."""

    def __init__(self, buffers: BufferPool) -> None:
        self.begin = self.end = 0
        self._buffers = buffers
        self._chunks: deque[Chunk] = deque()
        self._dropped: list[Chunk] = []

    def append(self, chunk: Chunk) -> None:
        """Keep a chunk that passes next, and drop the oldest for it.

        Memory goes back only now: once another chunk is asked for, the sink is done with what was dropped.
        """
        for old in self._dropped:
            self._buffers.give_back(old)
        self._dropped.clear()
        self._chunks.append(chunk)
        self.end += len(chunk)
        while self.end - self.begin > REPLAY_BUFFER_BYTES:
            self._dropped.append(self._chunks.popleft())
            self.begin += len(self._dropped[-1])

    def since(self, offset: int) -> Iterator[Chunk]:
        """Yield what passed from an offset on; `begin` is the first there is."""
        at = self.begin
        for chunk in tuple(self._chunks):
            if at + len(chunk) > offset:
                yield chunk[max(0, offset - at) :]
            at += len(chunk)


class ReadAhead:
    """Reads a file ahead in a thread, and hashes it there: receiving and sending go on at the same time.

    Args:
        reading: The file.
        buffers: Where its bytes are put.
        hashing: Is told of each as it is read.
    """

    def __init__(self, reading: ByteSource, buffers: BufferPool, hashing: LayerHasher | None) -> None:
        self._reading = reading
        self._buffers = buffers
        self._hashing = hashing
        self._room = threading.Semaphore(READ_AHEAD_CHUNKS)
        self._filled: SimpleQueue[Chunk | None] = SimpleQueue()
        self._failure: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)

    def __iter__(self) -> Iterator[Chunk]:
        self._thread.start()
        while (chunk := self._filled.get()) is not None:
            self._room.release()
            yield chunk
        if self._failure:
            raise self._failure

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        self._room.release()
        self._reading.abort()
        if self._thread.ident is not None:
            self._thread.join()
        self._reading.close()

    def _run(self) -> None:
        try:
            while not self._closed:
                self._room.acquire()
                buffer = self._buffers.take()
                count = self._reading.readinto(buffer)
                if not count:
                    break
                chunk = self._fitted(buffer, count)
                if self._hashing:
                    self._hashing.content(chunk)
                self._filled.put(chunk)
        except BaseException as failure:  # noqa: BLE001 - raised where the bytes are waited for
            self._failure = failure
        self._filled.put(None)

    def _fitted(self, buffer: memoryview, count: int) -> Chunk:
        """Return what was read; little of it in memory of its own: what is kept is counted in bytes."""
        if count > CHUNK // 2:
            return buffer[:count]
        chunk = bytes(buffer[:count])
        self._buffers.give_back(buffer)
        return chunk


class BufferPool:
    """Memory that is used again: what is fresh from the system has to be mapped and cleared first."""

    def __init__(self) -> None:
        self._free: SimpleQueue[memoryview] = SimpleQueue()

    def take(self) -> memoryview:
        """Return CHUNK bytes, with anything in them."""
        try:
            return self._free.get_nowait()
        except Empty:
            return memoryview(bytearray(CHUNK))

    def give_back(self, chunk: Chunk) -> None:
        """Take back an unused buffer; memory that is not from this pool is freed."""
        if isinstance(chunk, memoryview) and isinstance(chunk.obj, bytearray):
            self._free.put(memoryview(chunk.obj))
