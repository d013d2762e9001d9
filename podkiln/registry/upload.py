"""Uploading one blob: streamed, checked on the way, resumed where it was cut, never left half-made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from podkiln import oci
from podkiln.errors import RegistryError
from podkiln.registry.client import LostUploadError
from podkiln.registry.refusal import TransientError
from podkiln.registry.transport import CancelledError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.oci import Descriptor
    from podkiln.registry.client import Repository

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told what is being sent, bytes done, bytes in all. Called from several threads; done may fall back."""

_HEADWAY: Final = 1 << 20  # bytes a resumed upload must have gained for earlier failures to be forgotten


class Source(Protocol):
    """Where the bytes of a blob come from; replayable, since uploads are cut.

    `chunks` must not give out its last bytes unless all of them are right: it raises IntegrityError instead.
    That is the gate which keeps a wrong blob from ever being committed.
    """

    def chunks(self, blob: Descriptor, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes from an offset on."""


class Upload:
    """The upload of one blob.

    Args:
        repository: Where to.
        blob: What.
        source: Its bytes.
        on_progress: Told as they are sent.
    """

    def __init__(
        self,
        repository: Repository,
        blob: Descriptor,
        source: Source,
        on_progress: Progress,
    ) -> None:
        self._repository = repository
        self._blob = blob
        self._source = source
        self._on_progress = on_progress
        self._location: str | None = None
        self._offset = 0
        self._failure: Exception | None = None
        self._doing = f"take blob {oci.short(blob.digest)} ({blob.size} bytes) in {repository.name}"

    def run(self) -> None:
        """Send the blob; after any failure the registry is told to forget it."""
        transport = self._repository.transport
        failures = 0
        try:
            while True:
                try:
                    self._attempt()
                except TransientError as failure:
                    failures += 1
                    if failures >= transport.settings.attempts:
                        raise
                    transport.pause(failures, failure)
                    if self._repository.has_blob(self._blob):  # only the answer to the commit was lost
                        return
                    if self._resume(lost=isinstance(failure, LostUploadError)):
                        failures = 0
                else:
                    return
        except BaseException:
            self._drop()
            raise

    def _attempt(self) -> None:
        if self._location is None:
            self._location = self._repository.start_upload()
            self._offset = 0
        size = self._blob.size
        if self._offset < size:
            chunks = self._metered()
            try:
                self._location, self._offset = self._repository.send(
                    self._location, chunks, self._offset, size, self._doing
                )
            finally:
                if self._failure is not None:
                    raise self._failure
        if self._offset < size:
            host = self._repository.transport.host
            raise TransientError(f"Registry {host} took {self._offset} bytes of {size} only.")
        self._repository.commit(self._location, self._blob, self._doing)

    def _resume(self, *, lost: bool) -> bool:
        """Find out how far the registry got, else begin anew; tell whether the upload made headway."""
        before = self._offset
        if not lost and self._location is not None:
            try:
                self._location, self._offset = self._repository.upload_offset(self._location)
            except RegistryError:
                pass
            else:
                if self._offset <= self._blob.size:
                    return self._offset >= before + _HEADWAY
        self._drop()
        return False

    def _drop(self) -> None:
        if self._location is not None:
            self._repository.cancel_upload(self._location)
        self._location, self._offset = None, 0

    def _metered(self) -> Iterator[bytes]:
        """Yield the bytes to send, counting what is gone; ends early when they are wrong or no longer wanted.

        Ends, and does not raise: a body that is cut leaves behind an upload which registries built on
        distribution/distribution 2.8 cannot delete, since only the answer to the body names its new state.
        Without its last bytes and the closing PUT it is nothing but an upload to delete.
        """
        done = self._offset
        what = oci.short(self._blob.digest)
        try:
            for chunk in self._source.chunks(self._blob, self._offset):
                if self._repository.transport.cancelled.is_set():
                    raise CancelledError("given up")  # noqa: TRY301 - one way out for all that ends a body
                yield chunk
                done += len(chunk)
                self._on_progress(what, done, self._blob.size)
        except Exception as failure:  # noqa: BLE001 - raised by _attempt, once the registry has answered
            self._failure = failure
