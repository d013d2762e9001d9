"""One repository of a registry: the requests of the OCI distribution specification, each a method.

Source: distribution-spec v1.1 (spec.md; end-1 to end-11 are its names for the requests).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from httpx import codes

from podkiln import oci
from podkiln.errors import IntegrityError, RegistryError
from podkiln.registry.refusal import TRANSIENT, TransientError, is_lost_upload, words
from podkiln.registry.transport import MAX_ANSWER_BYTES, Settings, Transport

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from podkiln.oci import Descriptor, Digest
    from podkiln.reference import Reference
    from podkiln.registry.streaming import Answer
    from podkiln.tarlayer import Chunk

_RANGE_END: Final = re.compile(r"-(\d+)$")
_ACCEPT: Final = ", ".join((*oci.MANIFESTS, *oci.INDEXES))
_COMMIT_SECONDS: Final = 120.0
_COMMIT_RATE: Final = 20e6  # bytes/s at which an object store copies a blob to its place, pessimistically
_ANY: Final = frozenset(range(200, 500)) - TRANSIENT  # for questions to which a no is an answer
_TOO_MUCH: Final = frozenset(
    {codes.BAD_REQUEST, codes.REQUEST_ENTITY_TOO_LARGE, 416}
)  # said to one long PATCH
_NO_STREAMS: Final = frozenset(
    {codes.METHOD_NOT_ALLOWED, codes.LENGTH_REQUIRED, codes.NOT_IMPLEMENTED}
)  # said to a PATCH of unknown length
_USUAL_CHUNK: Final = 4 << 20  # bytes; GHCR takes no more in a ranged PATCH (oras-project/rust-oci-client 35)


class LostUploadError(TransientError):
    """The registry no longer goes on with an upload; another one must begin."""


class ChunksWantedError(TransientError):
    """The registry does not take the rest of an upload in one piece."""


class StreamsRefusedError(TransientError):
    """The registry takes no body whose length and digest are not told beforehand."""


@dataclass(frozen=True)
class ChunkSizes:
    """What a registry said of chunks, in bytes, when an upload began (OCI-Chunk-Min-Length, -Max-Length)."""

    least: int = 0
    most: int | None = None

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Read the headers; what is not a number was not said."""
        least, most = (
            answer.headers.get(f"oci-chunk-{which}-length", "").strip() for which in ("min", "max")
        )
        return cls(
            least=int(least) if least.isdecimal() else 0,
            most=int(most) if most.isdecimal() and int(most) > 0 else None,
        )

    @property
    def usual(self) -> int:
        """The length of chunks, where chunks it must be."""
        wanted = max(self.least, _USUAL_CHUNK)
        return min(wanted, self.most) if self.most else wanted


class Repository:
    """A repository at a registry. Use as a context manager; several threads may share it.

    Args:
        reference: Which one; tag and digest do not matter here.
        settings: How registries are spoken to.
        push: Ask for the right to write.
        mount_from: Other repositories there that we want to read, to mount blobs from.
    """

    def __init__(
        self,
        reference: Reference,
        settings: Settings | None = None,
        *,
        push: bool = False,
        mount_from: Sequence[str] = (),
    ) -> None:
        self.name = reference.repository
        scopes = [f"repository:{self.name}:{'pull,push' if push else 'pull'}"]
        scopes += [f"repository:{other}:pull" for other in mount_from]
        self.transport = Transport(reference.host, scopes, settings or Settings())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.transport.__exit__(*error)

    def ping(self) -> None:
        """See that a registry is there, and log in if it asks for it (end-1)."""
        self.transport.ask("GET", "/v2/", "speak the registry API", expect=(200, 401))

    def has_blob(self, blob: Descriptor) -> bool:
        """Tell whether a blob is there (end-2). Raises IntegrityError when it is there with another size."""
        doing = f"look for blob {oci.short(blob.digest)} in {self.name}"
        answer = self.transport.ask("HEAD", self._path("blobs", blob.digest), doing, expect=(200, 404))
        size = answer.headers.get("content-length", "")
        if answer.status == codes.OK and size.isdecimal() and int(size) not in (0, blob.size):
            raise IntegrityError(
                f"Registry {self.transport.host} holds blob {blob.digest} of {self.name} with {size} bytes, "
                f"but it has {blob.size}.",
                hint="The registry's storage is damaged: have that blob deleted there, then push again.",
            )
        return answer.status == codes.OK

    def blob(self, blob: Descriptor) -> bytes:
        """Return a small blob, a config for example, checked (end-2)."""
        doing = f"read blob {oci.short(blob.digest)} of {self.name}"
        if blob.size > MAX_ANSWER_BYTES:
            raise RegistryError(
                f"Blob {blob.digest} of {self.name} has {blob.size} bytes: too many to read here."
            )
        answer = self.transport.ask("GET", self._path("blobs", blob.digest), doing, expect=(200,))
        self._check(answer.body, blob.digest, f"blob of {self.name}")
        return answer.body

    def read(self, blob: Descriptor) -> Generator[bytes]:
        """Yield a blob of any size, in pieces, going on where a connection was cut (end-2).

        Raises IntegrityError at its end when it is not the blob that was asked for.
        """
        hashed = oci.hasher(blob.digest)
        for chunk in self.pieces(blob):
            hashed.update(chunk)
            yield chunk
        self._compare(hashed, blob.digest, f"blob of {self.name}")

    def pieces(self, blob: Descriptor, offset: int = 0) -> Generator[bytes]:
        """Yield a blob from an offset on, as `read` does, but unchecked."""
        done, failures = offset, 0
        while done < blob.size:
            try:
                for chunk in self._read_on(blob, done):
                    done += len(chunk)
                    failures = 0
                    yield chunk
            except TransientError as failure:
                failures += 1
                if failures >= self.transport.settings.attempts:
                    raise RegistryError(str(failure), hint=failure.hint) from failure
                self.transport.pause(failures, failure)

    def _read_on(self, blob: Descriptor, offset: int) -> Iterator[bytes]:
        """Yield a blob from an offset on, never more than it has. Raises TransientError at an early end."""
        doing = f"read blob {oci.short(blob.digest)} of {self.name}"
        left = blob.size - offset
        for chunk in self.transport.receive(self._path("blobs", blob.digest), offset, doing):
            yield chunk[:left]
            left -= len(chunk)
            if left < 0:
                return
        if left:
            raise TransientError(f"Registry {self.transport.host} sent a blob without its last {left} bytes.")

    def manifest(self, tag_or_digest: str) -> tuple[Descriptor, bytes]:
        """Return a manifest or index and its descriptor (end-3).

        The digest is that of the bytes; the one asked for, or claimed by the registry, must be the same.
        """
        doing = f"read manifest {tag_or_digest} of {self.name}"
        path = self._path("manifests", tag_or_digest)
        answer = self.transport.ask("GET", path, doing, expect=(200,), headers={"Accept": _ACCEPT})
        claimed = tag_or_digest if ":" in tag_or_digest else answer.headers.get("docker-content-digest")
        digest = oci.parse_digest(claimed, f"Registry {self.transport.host}") if claimed else None
        digest = digest or oci.digest_of(answer.body)
        self._check(answer.body, digest, f"manifest {tag_or_digest} of {self.name}")
        content_type = answer.headers.get("content-type", "").partition(";")[0].strip()
        media_type = oci.parse_json(answer.body, f"Manifest {tag_or_digest} of {self.name}").get("mediaType")
        return oci.Descriptor(str(media_type or content_type), digest, len(answer.body)), answer.body

    def put_manifest(self, tag_or_digest: str, data: bytes, media_type: str) -> None:
        """Write a manifest, under a digest or a tag (end-7)."""
        doing = f"take manifest {tag_or_digest} in {self.name}"
        path = self._path("manifests", tag_or_digest)
        headers = {"Content-Type": media_type}
        self.transport.ask("PUT", path, doing, expect=(200, 201, 202), headers=headers, content=data)

    def mount(self, blob: Descriptor, source: str) -> bool:
        """Have a blob taken over from another repository of the registry; False when it was not (end-11)."""
        query = f"?mount={quote(blob.digest, safe='')}&from={quote(source, safe='')}"
        path = self._path("blobs", "uploads/" + query)
        answer = self.transport.ask("POST", path, "mount a blob", expect=_ANY, content=b"")
        if answer.status == codes.ACCEPTED:  # it began an upload instead
            self.cancel_upload(self._location(answer, path))
        return answer.status == codes.CREATED

    def start_upload(self) -> tuple[str, ChunkSizes]:
        """Begin an upload; return its URL, and what the registry says of chunks (end-4a)."""
        doing = f"begin an upload to {self.name}"
        path = self._path("blobs", "uploads/")
        answer = self.transport.ask("POST", path, doing, expect=(202,), content=b"")
        return self._location(answer, path), ChunkSizes.of(answer)

    def upload_offset(self, location: str) -> tuple[str, int]:
        """Return where an upload goes on, and how many bytes of it the registry holds (end-13)."""
        answer = self.transport.ask("GET", location, "tell the state of an upload", expect=_ANY)
        end = _RANGE_END.search(answer.headers.get("range", ""))
        # A range of 0-0 stands for one byte and for none: not to be trusted.
        if answer.status != codes.NO_CONTENT or not end or end[1] == "0":
            raise self._lost(answer)
        return self._location(answer, location), int(end[1]) + 1

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
        if answer.status in _TOO_MUCH and not ranged:
            raise ChunksWantedError(
                f"Registry {self.transport.host} does not take {stop - start} bytes in one piece "
                f"({words(answer)}).",
                wait=0,
            )
        if answer.status in _NO_STREAMS:
            raise StreamsRefusedError(
                f"Registry {self.transport.host} takes no streamed uploads ({words(answer)}).", wait=0
            )
        if answer.status == codes.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            raise TransientError(f"Registry {self.transport.host} does not go on at byte {start}.")
        if answer.status not in (codes.CREATED, codes.ACCEPTED, codes.NO_CONTENT):
            self.transport.refuse(answer, doing)
        end = _RANGE_END.search(answer.headers.get("range", ""))
        return self._location(answer, location), int(end[1]) + 1 if end else stop

    def commit(self, location: str, blob: Descriptor, doing: str) -> None:
        """Close an upload: the registry compares the digest and keeps the blob (end-6)."""
        url, patience = _closing(location, blob), _patience(blob.size)
        self._closed(
            self.transport.ask("PUT", url, doing, expect=_ANY, content=b"", patience=patience), blob, doing
        )

    def send_whole(self, location: str, chunks: Iterable[Chunk], blob: Descriptor, doing: str) -> None:
        """Send a blob whose digest is known and close its upload, all in one PUT (end-6)."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        patience = _patience(2 * blob.size)
        answer = self.transport.stream("PUT", _closing(location, blob), headers, chunks, patience)
        if answer.status in TRANSIENT:
            raise TransientError(f"Registry {self.transport.host} failed to {doing} ({words(answer)}).")
        self._closed(answer, blob, doing)

    def _closed(self, answer: Answer, blob: Descriptor, doing: str) -> None:
        if is_lost_upload(answer):
            raise self._lost(answer)
        if answer.status not in (codes.CREATED, codes.NO_CONTENT):
            self.transport.refuse(answer, doing)
        kept = answer.headers.get("docker-content-digest", blob.digest)
        if kept != blob.digest:
            raise IntegrityError(
                f"Registry {self.transport.host} kept blob {blob.digest} of {self.name} as {kept[:160]!r}."
            )

    def cancel_upload(self, location: str) -> None:
        """Drop an upload, if the registry listens; it drops forgotten ones itself some day."""
        self.transport.drop(location)

    def _path(self, kind: str, name: str) -> str:
        return f"/v2/{self.name}/{kind}/{name}"

    def _location(self, answer: Answer, base: str) -> str:
        location = answer.headers.get("location")
        if not location:
            raise RegistryError(f"Registry {self.transport.host} began an upload without saying where.")
        return str(self.transport.absolute(location, self.transport.absolute(base)))

    def _lost(self, answer: Answer) -> LostUploadError:
        return LostUploadError(
            f"Registry {self.transport.host} did not go on with an upload to {self.name} ({words(answer)})."
        )

    def _check(self, data: bytes, digest: Digest, what: str) -> None:
        hashed = oci.hasher(digest)
        hashed.update(data)
        self._compare(hashed, digest, what)

    def _compare(self, hashed: hashlib._Hash, digest: Digest, what: str) -> None:
        if hashed.hexdigest() != digest.partition(":")[2]:
            raise IntegrityError(
                f"Registry {self.transport.host} sent a {what} that hashes to "
                f"{hashed.name}:{hashed.hexdigest()}, not {digest}."
            )


def _closing(location: str, blob: Descriptor) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={quote(blob.digest, safe='')}"


def _patience(size: int) -> float:
    """Return the seconds to wait for a registry that moves `size` bytes to their place."""
    return _COMMIT_SECONDS + size / _COMMIT_RATE
