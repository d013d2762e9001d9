"""The requests of an upload to a repository, each a method: begun, sent, asked about, closed, dropped.

What order they come in is registry/upload.py's to decide. Source: distribution-spec v1.1 (spec.md).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from podkiln.errors import IntegrityError, RegistryError
from podkiln.registry.errors import TRANSIENT, TransientError, is_lost_upload, words
from podkiln.registry.headers import ChunkSizes, range_end
from podkiln.registry.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podkiln.oci.reference import Reference
    from podkiln.oci.spec import Descriptor
    from podkiln.oci.tar_layer import Chunk
    from podkiln.registry.http_client import Response
    from podkiln.registry.options import Confirmed
    from podkiln.registry.transport import Transport

_COMMIT_SECONDS: Final = 120.0
_COMMIT_RATE: Final = 20e6  # bytes/s at which an object store copies a blob to its place, pessimistically
ANY_ANSWER: Final = frozenset(range(200, 500)) - TRANSIENT
"""Statuses, for questions to which a no is an answer."""
_TOO_MUCH: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 416}
)  # said to one long PATCH
_NO_STREAMS: Final = frozenset(
    {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.LENGTH_REQUIRED, HTTPStatus.NOT_IMPLEMENTED}
)  # said to a PATCH of unknown length


class LostUploadError(TransientError):
    """The registry no longer goes on with an upload; another one must begin.

    `certain` is False when it only does not know the upload, which another of its machines may.
    """

    def __init__(self, message: str, *, certain: bool) -> None:
        super().__init__(message)
        self.certain = certain


class ChunkedUploadRequiredError(TransientError):
    """The registry, or a proxy before it, does not take so many bytes in one request.

    `refusal` is the error for when there are no smaller chunks to try.
    """

    def __init__(self, message: str, refusal: RegistryError) -> None:
        super().__init__(message, wait=0)
        self.refusal = refusal


class StreamingNotSupportedError(TransientError):
    """The registry takes no body whose length and digest are not told beforehand."""


class UploadRequests(Reader):
    """A repository to upload blobs to; several threads may share it.

    Args:
        reference: Which one.
        transport: Sends the requests.
        confirmed: What registries have confirmed in this run; what is uploaded is noted there.
    """

    def __init__(self, reference: Reference, transport: Transport, confirmed: Confirmed) -> None:
        super().__init__(reference.repository, transport)
        self.chunk: int | None = None
        """Bytes in one PATCH that an upload to here has found to be the most; None: nothing is known."""
        self._full_name = reference.name
        self._confirmed = confirmed

    def confirm(self, blob: Descriptor) -> None:
        """Take note that the registry holds a blob, by its own word."""
        self._confirmed.add(self._full_name, blob.digest)

    def forget(self) -> None:
        """Forget what the registry has confirmed: ask for each blob again."""
        self._confirmed.forget(self._full_name)

    def initiate_upload(self) -> tuple[str, ChunkSizes]:
        """Begin an upload; return its URL, and what the registry says of chunks (end-4a)."""
        doing = f"begin an upload to {self.name}"
        path = self._path("blobs", "uploads/")
        answer = self.transport.ask("POST", path, doing, expect=(202,), content=b"")
        return self._location(answer, path), ChunkSizes.of(answer.headers)

    def upload_offset(self, location: str) -> tuple[str, int]:
        """Return where an upload goes on, and how many bytes of it the registry holds (end-13)."""
        answer = self.transport.ask("GET", location, "tell the state of an upload", expect=ANY_ANSWER)
        end = range_end(answer.headers.get("range"))
        # A range of 0-0 stands for one byte and for none: not to be trusted.
        if answer.status != HTTPStatus.NO_CONTENT or not end:
            raise self._lost(answer)
        return self._location(answer, location), end + 1

    def send(
        self,
        location: str,
        chunks: Iterable[Chunk],
        span: tuple[int, int],
        doing: str,
        *,
        ranged: bool = False,
    ) -> tuple[str, int]:
        """Send some bytes of an upload in one PATCH.

        From 0 on as docker does: chunked transfer without a range, which registries take that limit the size
        of a ranged chunk (GHCR: 4 MiB). Going on later needs the range (end-5), and so do chunks.

        Args:
            location: The upload's URL.
            chunks: The bytes.
            span: Where they begin and where they end.
            doing: What for, for errors.
            ranged: Whether this is one chunk of several.

        Returns:
            The upload's next URL, and how many bytes of it the registry holds now.
        """
        start, stop = span
        headers = {"Content-Type": "application/octet-stream"}
        if start or ranged:
            headers |= {"Content-Range": f"{start}-{stop - 1}", "Content-Length": str(stop - start)}
        answer = self.transport.stream("PATCH", location, headers, chunks, _patience(stop - start))
        if is_lost_upload(answer):
            raise self._lost(answer)
        if answer.status in _TOO_MUCH and (
            not ranged or answer.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        ):
            raise ChunkedUploadRequiredError(
                f"Registry {self.transport.host} does not take {stop - start} bytes in one piece "
                f"({words(answer)}).",
                self.transport.refusal(answer, doing),
            )
        if answer.status in _NO_STREAMS:
            raise StreamingNotSupportedError(
                f"Registry {self.transport.host} takes no streamed uploads ({words(answer)}).", wait=0
            )
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            raise TransientError(f"Registry {self.transport.host} does not go on at byte {start}.")
        if answer.status not in (HTTPStatus.CREATED, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT):
            self.transport.refuse(answer, doing)
        end = range_end(answer.headers.get("range"))
        return self._location(answer, location), stop if end is None else end + 1

    def commit(self, location: str, blob: Descriptor, doing: str) -> None:
        """Close an upload: the registry compares the digest and keeps the blob (end-6)."""
        url, patience = _closing(location, blob), _patience(blob.size)
        self._closed(
            self.transport.ask("PUT", url, doing, expect=ANY_ANSWER, content=b"", patience=patience),
            blob,
            doing,
        )

    def put_monolithic(self, location: str, chunks: Iterable[Chunk], blob: Descriptor, doing: str) -> None:
        """Send a blob whose digest is known and close its upload, all in one PUT (end-6)."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        patience = _patience(2 * blob.size)
        answer = self.transport.stream("PUT", _closing(location, blob), headers, chunks, patience)
        if answer.status in TRANSIENT:
            raise TransientError(f"Registry {self.transport.host} failed to {doing} ({words(answer)}).")
        self._closed(answer, blob, doing)

    def _closed(self, answer: Response, blob: Descriptor, doing: str) -> None:
        if is_lost_upload(answer):
            raise self._lost(answer)
        if answer.status not in (HTTPStatus.CREATED, HTTPStatus.NO_CONTENT):
            self.transport.refuse(answer, doing)
        kept = answer.headers.get("docker-content-digest", blob.digest)
        if kept != blob.digest:
            raise IntegrityError(
                f"Registry {self.transport.host} kept blob {blob.digest} of {self.name} as {kept[:160]!r}."
            )
        self.confirm(blob)

    def cancel_upload(self, location: str, *, stale: bool = False) -> bool:
        """Drop an upload; False when the registry does not: it drops forgotten ones itself some day.

        `stale`: bytes were sent since it said that this is where the upload lies.
        """
        return self.transport.drop(location, stale=stale)

    def _location(self, answer: Response, base: str) -> str:
        location = answer.headers.get("location")
        if not location:
            raise RegistryError(f"Registry {self.transport.host} began an upload without saying where.")
        return str(self.transport.absolute(location, self.transport.absolute(base)))

    def _lost(self, answer: Response) -> LostUploadError:
        return LostUploadError(
            f"Registry {self.transport.host} did not go on with an upload to {self.name} ({words(answer)}).",
            certain=answer.status != HTTPStatus.NOT_FOUND,
        )


def _closing(location: str, blob: Descriptor) -> str:
    """Return the URL that closes an upload: its own, query and all, and the digest."""
    joint = "" if location.endswith(("?", "&")) else "&" if "?" in location else "?"
    return f"{location}{joint}digest={quote(blob.digest, safe='')}"


def _patience(size: int) -> float:
    """Return the seconds to wait for a registry that moves `size` bytes to their place."""
    return _COMMIT_SECONDS + size / _COMMIT_RATE
