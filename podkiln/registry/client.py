"""One repository of a registry: the requests of the OCI distribution specification, each a method.

Source: distribution-spec v1.1 (spec.md; end-1 to end-11 are its names for the requests).
"""

from __future__ import annotations

import contextlib
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from podkiln.errors import IntegrityError, RegistryError
from podkiln.oci import spec
from podkiln.registry.errors import (
    TRANSIENT,
    Settling,
    SettlingError,
    TransientError,
    UnsettledError,
    is_immutable,
    is_lost_upload,
    lacks_blob,
    refuse_page,
    words,
)
from podkiln.registry.headers import ChunkSizes, number, range_end
from podkiln.registry.options import RegistryOptions
from podkiln.registry.reader import AGAIN, Reader
from podkiln.registry.transport import Transport
from podkiln.util.interrupts import INTERRUPTIONS
from podkiln.util.open_uploads import UPLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podkiln.oci.reference import Reference
    from podkiln.oci.spec import Descriptor, Digest
    from podkiln.oci.tar_layer import Chunk
    from podkiln.registry.http_client import Response

log = logging.getLogger(__name__)

_COMMIT_SECONDS: Final = 120.0
_COMMIT_RATE: Final = 20e6  # bytes/s at which an object store copies a blob to its place, pessimistically
_ANY: Final = frozenset(range(200, 500)) - TRANSIENT  # for questions to which a no is an answer
_TOO_MUCH: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 416}
)  # said to one long PATCH
_NO_STREAMS: Final = frozenset(
    {HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.LENGTH_REQUIRED, HTTPStatus.NOT_IMPLEMENTED}
)  # said to a PATCH of unknown length
_WRITTEN: Final = frozenset({200, 201, 202})
_PERHAPS_KEPT: Final = frozenset({400, 403, 405, 409, 412, 422, 423})  # said of tags that may not move

BLOBS_CONFIRMED: Final = Settling(
    lacks_blob, "does not know a blob that it confirmed in this run", f"The tag was not moved. {AGAIN}"
)


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


class Repository(Reader):
    """A repository at a registry. Use as a context manager; several threads may share it.

    Args:
        reference: Which one; tag and digest do not matter here.
        settings: Options of registry connections.
        push: Ask for the right to write.
        mount_from: Other repositories there that we want to read, to mount blobs from.
    """

    def __init__(
        self,
        reference: Reference,
        settings: RegistryOptions | None = None,
        *,
        push: bool = False,
        mount_from: Sequence[str] = (),
    ) -> None:
        scopes = [f"repository:{reference.repository}:{'pull,push' if push else 'pull'}"]
        scopes += [f"repository:{other}:pull" for other in mount_from]
        settings = settings or RegistryOptions()
        super().__init__(reference.repository, Transport(reference.host, scopes, settings))
        self.chunk: int | None = None
        """Bytes in one PATCH that an upload to here has found to be the most; None: nothing is known."""
        self._full_name = reference.name
        self._confirmed = settings.confirmed
        self._mounts = True  # as far as is known: whether what is said to be mounted is there

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.transport.__exit__(*error)

    def ping(self) -> None:
        """See that a registry is there, and log in if it asks for it (end-1)."""
        self.transport.ask("GET", "/v2/", "speak the registry API", expect=(200, 401))

    def blob_exists(self, blob: Descriptor) -> bool:
        """Tell whether a blob is there (end-2). Raises IntegrityError when it is there with another size.

        What the registry has confirmed in this run is not asked for again.
        """
        if self._confirmed.has(self._full_name, blob.digest):
            return True
        doing = f"look for blob {spec.short(blob.digest)} in {self.name}"
        answer = self.transport.ask("HEAD", self._path("blobs", blob.digest), doing, expect=(200, 404))
        if answer.status != HTTPStatus.OK:
            return False
        refuse_page(answer, self.transport.host, doing)
        size = number(answer.headers.get("content-length")) or blob.size  # 0: some say it for every HEAD
        if size != blob.size:
            raise IntegrityError(
                f"Registry {self.transport.host} holds blob {blob.digest} of {self.name} with {size} bytes, "
                f"but it has {blob.size}.",
                hint="The registry's storage is damaged: have that blob deleted there, then push again.",
            )
        self.confirm(blob)
        return True

    def confirm(self, blob: Descriptor) -> None:
        """Take note that the registry holds a blob, by its own word."""
        self._confirmed.add(self._full_name, blob.digest)

    def forget(self) -> None:
        """Forget what the registry has confirmed: ask for each blob again."""
        self._confirmed.forget(self._full_name)

    def put_manifest(self, tag_or_digest: str, data: bytes, media_type: str) -> None:
        """Write a manifest, under a digest or a tag (end-7).

        A tag that may not move and names this very manifest is as good as written. Raises UnsettledError when
        the registry goes on not knowing a blob of it.
        """
        doing = f"take manifest {tag_or_digest} in {self.name}"
        path = self._path("manifests", tag_or_digest)
        headers = {"Content-Type": media_type}
        expect = _WRITTEN | _PERHAPS_KEPT
        answer = self.transport.ask(
            "PUT", path, doing, expect=expect, headers=headers, content=data, settling=BLOBS_CONFIRMED
        )
        if answer.status not in _WRITTEN:
            self._accept_kept(tag_or_digest, spec.digest_of(data), answer, doing)

    def _accept_kept(self, name: str, wanted: Digest, answer: Response, doing: str) -> None:
        """Raise the error for a manifest that was not taken, unless the registry holds it under this name."""
        held = None
        with contextlib.suppress(RegistryError, IntegrityError):
            held = self.manifest(name)[0].digest
        if held == wanted:
            log.info("%s of %s names this image already.", name, self.name)
            return
        if held and is_immutable(answer):
            raise RegistryError(
                f"Tag {name} of {self.name} at {self.transport.host} names {held} already, and the registry "
                f"does not let it move ({words(answer)}).",
                hint="Push under another tag (--tag T), or have that one deleted there.",
            )
        self.transport.refuse(answer, doing)

    def mount(self, blob: Descriptor, source: str) -> bool:
        """Mount a blob from another repository of the registry; False when it was not (end-11).

        Some registries answer that they did, and then do not know it: it counts once it is there, and one
        that is not in the end is the last that is tried.
        """
        if not self._mounts:
            return False
        query = f"?mount={quote(blob.digest, safe='')}&from={quote(source, safe='')}"
        path = self._path("blobs", "uploads/" + query)
        answer = self.transport.ask("POST", path, "mount a blob", expect=_ANY, content=b"")
        if answer.status == HTTPStatus.ACCEPTED:  # it began an upload instead
            self._cancel(self._location(answer, path), UPLOADS.begin(self.transport.host))
        self._mounts = answer.status != HTTPStatus.CREATED or self._appears(blob)
        return answer.status == HTTPStatus.CREATED and self._mounts

    def _appears(self, blob: Descriptor) -> bool:
        """Wait until the registry shows a blob that it has confirmed; False when it does not."""

        def once() -> None:
            if not self.blob_exists(blob):
                host = self.transport.host
                raise SettlingError(f"Registry {host} does not show blob {spec.short(blob.digest)} yet.")

        try:
            self.transport.retrying(once)
        except UnsettledError as failure:
            log.info("%s The registry said that it was mounted; it is sent another way.", failure)
            return False
        return True

    def initiate_upload(self) -> tuple[str, ChunkSizes]:
        """Begin an upload; return its URL, and what the registry says of chunks (end-4a)."""
        doing = f"begin an upload to {self.name}"
        path = self._path("blobs", "uploads/")
        answer = self.transport.ask("POST", path, doing, expect=(202,), content=b"")
        return self._location(answer, path), ChunkSizes.of(answer.headers)

    def upload_offset(self, location: str) -> tuple[str, int]:
        """Return where an upload goes on, and how many bytes of it the registry holds (end-13)."""
        answer = self.transport.ask("GET", location, "tell the state of an upload", expect=_ANY)
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
            self.transport.ask("PUT", url, doing, expect=_ANY, content=b"", patience=patience), blob, doing
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

    def cancel_upload(self, location: str) -> bool:
        """Drop an upload; False when the registry does not: it drops forgotten ones itself some day."""
        return self.transport.drop(location)

    def try_upload(self) -> None:
        """Begin an upload and drop it: what can be refused is refused now."""
        number = UPLOADS.begin(self.transport.host)
        try:
            location, _ = self.initiate_upload()
        except RegistryError:
            UPLOADS.end(number)
            raise
        with INTERRUPTIONS.held():
            self._cancel(location, number)

    def _cancel(self, location: str, number: int) -> None:
        if self.cancel_upload(location):
            UPLOADS.end(number)

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
