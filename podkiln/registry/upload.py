"""Uploading one blob: streamed, checked on the way, resumed where it was cut, never left half-made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from podkiln.errors import IntegrityError, RegistryError
from podkiln.registry.cancellation import CancelledError
from podkiln.registry.errors import TransientError
from podkiln.registry.headers import ChunkSizes
from podkiln.registry.http_client import EndedEarlyError
from podkiln.registry.upload_requests import (
    ChunkedUploadRequiredError,
    LostUploadError,
    StreamingNotSupportedError,
)
from podkiln.util.interrupts import INTERRUPTIONS
from podkiln.util.open_uploads import UPLOADS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from podkiln.oci.spec import Descriptor
    from podkiln.oci.tar_layer import Chunk
    from podkiln.registry.client import Repository

Progress: TypeAlias = Callable[[str, int, int], None]
"""Progress callback (name, bytes done, bytes in all). Called from several threads; done may fall back."""


def ignore_progress(_what: str, _done: int, _total: int) -> None:
    """Be a Progress of which nobody hears."""


_CUT_STREAMS: Final = 2
"""Streams without any headway before chunks are tried: proxies cut off what is too long without a word."""

_HEADWAY: Final = 1 << 20
"""Bytes that an upload must have gained, beyond all attempts before, for earlier failures to be forgotten."""


class BlobSource(Protocol):
    """The bytes of one blob; replayable, since uploads are cut.

    `chunks` must not give out its last bytes unless all of them are right: it raises IntegrityError instead.
    That is the gate which keeps a wrong blob from ever being committed.
    """

    @property
    def name(self) -> str:
        """What it is called while it is under way."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def blob(self) -> Descriptor | None:
        """The blob, as soon as its digest is known: at the latest when all of `chunks` were given out."""

    def chunks(self, offset: int = 0) -> Iterator[Chunk]:
        """Yield the bytes from an offset on."""


class Upload:
    """The upload of one blob.

    Args:
        repository: Where to.
        content: What.
        on_progress: Progress callback (name, bytes done, bytes in all).
    """

    def __init__(self, repository: Repository, content: BlobSource, on_progress: Progress) -> None:
        self._repository = repository
        self._content = content
        self._on_progress = on_progress
        self._location: str | None = None
        self._stale = False  # bytes were sent, and the answer with the next location has not come
        self._offset = 0
        self._furthest = 0  # of all attempts: bytes that are sent again do not count as progress
        self._sizes = ChunkSizes()
        self._chunk = repository.chunk  # bytes in one PATCH; None: all that is left
        self._number: int | None = None  # among the uploads that are unfinished
        self._whole = False  # one PUT with the length told, and the digest
        self._failure: Exception | None = None
        self._doing = f"take blob {content.name} ({content.size} bytes) in {repository.name}"

    def run(self) -> Descriptor:
        """Send the blob and return it; after any failure the registry is told to forget it."""
        transport = self._repository.transport
        backoff = transport.backoff()
        try:
            while True:
                try:
                    return self._ended(self._attempt())
                except ChunkedUploadRequiredError as failure:
                    self._shrink(failure)  # no failed attempt: there are only so many lengths
                    self._resume(failure)
                except TransientError as failure:
                    transport.pause(backoff, failure)
                    if backoff.failures == _CUT_STREAMS and self._chunk is None and not self._furthest:
                        self._chunk = self._sizes.usual
                    committed = self._content.blob
                    if committed and self._repository.blob_exists(committed):
                        return self._ended(committed)  # only the answer to it was lost
                    if self._resume(failure):
                        backoff.succeeded()
        except BaseException:
            with INTERRUPTIONS.held():
                self._drop()
            raise

    def _ended(self, blob: Descriptor) -> Descriptor:
        UPLOADS.end(self._number)
        return blob

    def _begin(self) -> None:
        """Begin an upload at the registry."""
        transport = self._repository.transport
        transport.refuse_cancelled()
        self._number = UPLOADS.begin(transport.host)
        try:
            self._location, self._sizes = self._repository.initiate_upload()
        except CancelledError:  # it may have begun, and only the answer was not waited for
            raise
        except RegistryError:
            UPLOADS.end(self._number)
            raise
        self._offset = 0
        if self._sizes.most and self._chunk is None:
            self._chunk = self._sizes.usual

    def _attempt(self) -> Descriptor:
        if self._location is None:
            self._begin()
        assert self._location is not None  # noqa: S101 - begun above
        if self._whole and self._content.blob:
            self._send_whole(self._location, self._content.blob)
            return self._content.blob
        if self._offset < self._content.size:
            self._location = self._send(self._location)
        blob = self._content.blob
        if blob is None:
            raise IntegrityError(f"{self._content.name} ended without a digest; nothing was committed.")
        self._repository.commit(self._location, blob, self._doing)
        return blob

    def _send(self, location: str) -> str:
        """Send what is left, in one piece or in chunks, and return the upload's next URL."""
        size = self._content.size
        with closing(self._metered()) as chunks:
            pieces = ByteSplitter(chunks)
            try:
                while self._offset < size and self._failure is None:
                    stop = min(self._offset + (self._chunk or size), size)
                    body = pieces.take(stop - self._offset)
                    span = (self._offset, stop)
                    self._stale = True
                    location, self._offset = self._repository.send(
                        location, body, span, self._doing, ranged=self._chunk is not None
                    )
                    self._location, self._stale = location, False
                    if self._offset != stop:
                        host = self._repository.transport.host
                        raise TransientError(f"Registry {host} took {self._offset} bytes of {size} only.")
            finally:
                if self._failure is not None:
                    raise self._failure
        return location

    def _send_whole(self, location: str, blob: Descriptor) -> None:
        self._stale = True
        with closing(self._metered()) as chunks:
            try:
                self._repository.put_monolithic(location, chunks, blob, self._doing)
            finally:
                if self._failure is not None:
                    raise self._failure

    def _resume(self, failure: TransientError) -> bool:
        """Find out how far the registry got, else begin again; tell whether the upload made progress."""
        if isinstance(failure, StreamingNotSupportedError):
            self._whole = True
            if self._content.blob is None:
                raise RegistryError(str(failure), hint="Give --spool DIR: weights are then sent from there.")
        lost = isinstance(failure, LostUploadError) and failure.certain
        if not self._whole and not lost and self._location is not None:
            try:
                self._location, self._offset = self._repository.upload_offset(self._location)
            except RegistryError:
                pass
            else:
                self._stale = False
                if self._offset <= self._content.size:
                    return self._has_headway()
        self._drop()
        return False

    def _shrink(self, failure: ChunkedUploadRequiredError) -> None:
        """Go on in smaller chunks. Raises RegistryError when there are none."""
        if self._chunk is None:
            self._chunk = self._sizes.usual
            if self._offset == 0:  # what is left of a cut upload may be refused where a whole one is taken
                self._repository.chunk = self._chunk
            return
        smaller = self._sizes.smaller(min(self._chunk, self._content.size))
        if smaller is None:
            raise failure.refusal
        self._chunk = self._repository.chunk = smaller

    def _has_headway(self) -> bool:
        if self._offset < self._furthest + _HEADWAY:
            return False
        self._furthest = self._offset
        return True

    def _drop(self) -> None:
        if self._location is not None and self._repository.cancel_upload(self._location, stale=self._stale):
            UPLOADS.end(self._number)
        self._location, self._offset, self._stale = None, 0, False

    def _metered(self) -> Generator[Chunk]:
        """Yield the bytes to send, counting what is gone; ends early when they are wrong or no longer wanted.

        Ends, and does not break off: a body that is cut leaves behind an upload which registries built on
        distribution/distribution 2.8 cannot delete, since only the answer to the body names its new state.
        Without its last bytes and the closing PUT it is nothing but an upload to delete.
        """
        done = self._offset
        try:
            for chunk in self._content.chunks(self._offset):
                if self._repository.transport.cancelled.is_set():
                    raise CancelledError("given up")  # noqa: TRY301 - one way out for all that ends a body
                done += len(chunk)
                self._on_progress(self._content.name, done, self._content.size)
                yield chunk
        except Exception as failure:  # raised again by the sender, once the registry has answered
            self._failure = failure
            raise EndedEarlyError from failure


class ByteSplitter:
    """A stream of bytes, to be taken in pieces of given lengths; nothing is put together in memory."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self._rest: Chunk = b""

    def take(self, length: int) -> Iterator[Chunk]:
        """Yield the next `length` bytes, or what is left of them."""
        while length:
            chunk = self._rest or next(self._chunks, b"")
            if not chunk:
                return
            piece, self._rest = chunk[:length], chunk[length:]
            length -= len(piece)
            yield piece
