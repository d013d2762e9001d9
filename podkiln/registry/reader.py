"""Reading a repository of a registry: its manifests and blobs, checked against their digests.

Source: distribution-spec v1.1 (spec.md; end-1 to end-11 are its names for the requests).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from podkiln.errors import IntegrityError, RegistryError
from podkiln.oci import spec
from podkiln.registry.errors import Settling, TransientError, refuse_page
from podkiln.registry.http_client import MAX_ANSWER_BYTES
from podkiln.registry.trickle import headway

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Generator, Iterator

    from podkiln.oci.spec import Descriptor, Digest
    from podkiln.registry.http_client import Response
    from podkiln.registry.transport import Transport

_ACCEPT: Final = ", ".join((*spec.MANIFESTS, *spec.INDEXES))
AGAIN: Final = (
    "It has lost something, or shows it late. "
    "Run the same command again: it checks each layer, and sends what is missing."
)
MANIFEST_WRITTEN: Final = Settling(
    lambda answer: answer.status == HTTPStatus.NOT_FOUND,
    "does not show what it took in this run",
    f"The push is complete as far as the registry has said. {AGAIN}",
)


class Reader:
    """A repository at a registry, to read from; several threads may share it."""

    def __init__(self, name: str, transport: Transport) -> None:
        self.name = name
        self.transport = transport

    def blob(self, blob: Descriptor, *, written: bool = False) -> bytes:
        """Return a small blob, a config for example, checked (end-2); `written`: it was put there now."""
        doing = f"read blob {spec.short(blob.digest)} of {self.name}"
        if blob.size > MAX_ANSWER_BYTES:
            raise RegistryError(
                f"Blob {blob.digest} of {self.name} has {blob.size} bytes: too many to read here."
            )
        path, settling = self._path("blobs", blob.digest), MANIFEST_WRITTEN if written else None
        answer = self.transport.ask("GET", path, doing, expect=(200,), settling=settling)
        self._check(answer.body, blob.digest, f"blob of {self.name}")
        return answer.body

    def read(self, blob: Descriptor) -> Generator[bytes]:
        """Yield a blob of any size, in pieces, going on where a connection was cut (end-2).

        Raises IntegrityError at its end when it is not the blob that was asked for.
        """
        hashed = spec.hasher(blob.digest)
        for chunk in self.pieces(blob):
            hashed.update(chunk)
            yield chunk
        self._compare(hashed, blob.digest, f"blob of {self.name}")

    def pieces(self, blob: Descriptor, offset: int = 0) -> Generator[bytes]:
        """Yield a blob from an offset on, as `read` does, but unchecked."""
        done, backoff = offset, self.transport.backoff()
        settled = offset  # where failures were last forgotten
        while done < blob.size:
            try:
                for chunk in self._read_on(blob, done):
                    done += len(chunk)
                    if done >= settled + headway(blob.size):
                        backoff.succeeded()
                        settled = done
                    yield chunk
            except TransientError as failure:
                self.transport.pause(backoff, failure)

    def _read_on(self, blob: Descriptor, offset: int) -> Iterator[bytes]:
        """Yield a blob from an offset on, never more than it has. Raises TransientError at an early end."""
        doing = f"read blob {spec.short(blob.digest)} of {self.name}"
        left = blob.size - offset
        for chunk in self.transport.receive(self._path("blobs", blob.digest), offset, doing):
            yield chunk[:left]
            left -= len(chunk)
            if left < 0:
                return
        if left:
            raise TransientError(f"Registry {self.transport.host} sent a blob without its last {left} bytes.")

    def manifest(self, tag_or_digest: str, *, written: bool = False) -> tuple[Descriptor, bytes]:
        """Return a manifest or index and its descriptor (end-3); `written`: it was put there just now.

        The digest is that of the bytes; the one asked for, or claimed by the registry, must be the same.
        """
        doing = f"read manifest {tag_or_digest} of {self.name}"
        path = self._path("manifests", tag_or_digest)
        settling = MANIFEST_WRITTEN if written else None
        headers = {"Accept": _ACCEPT}
        answer = self.transport.ask("GET", path, doing, expect=(200,), headers=headers, settling=settling)
        refuse_page(answer, self.transport.host, doing)
        claimed = tag_or_digest if ":" in tag_or_digest else answer.headers.get("docker-content-digest")
        digest = spec.parse_digest(claimed, f"Registry {self.transport.host}") if claimed else None
        digest = digest or spec.digest_of(answer.body)
        self._check(answer.body, digest, f"manifest {tag_or_digest} of {self.name}")
        content_type = _content_type(answer)
        media_type = spec.parse_json(answer.body, f"Manifest {tag_or_digest} of {self.name}").get("mediaType")
        if media_type and content_type and media_type != content_type:  # engines go by what the header says
            raise IntegrityError(
                f"Registry {self.transport.host} sent manifest {tag_or_digest} of {self.name} with the "
                f"Content-Type {content_type[:160]!r}, but it says that it is {str(media_type)[:160]!r}."
            )
        return spec.Descriptor(str(media_type or content_type), digest, len(answer.body)), answer.body

    def named(self, tag_or_digest: str) -> tuple[str, Digest | None]:
        """Return type and digest of a manifest by the registry's word alone (end-3), as engines ask first.

        The digest is None where the registry tells none. Raises RegistryError.
        """
        doing = f"ask for the digest of manifest {tag_or_digest} of {self.name}"
        path, headers = self._path("manifests", tag_or_digest), {"Accept": _ACCEPT}
        answer = self.transport.ask("HEAD", path, doing, expect=(200,), headers=headers)
        claimed = answer.headers.get("docker-content-digest")
        where = f"Registry {self.transport.host}"
        return _content_type(answer), spec.parse_digest(claimed, where) if claimed else None

    def _path(self, kind: str, name: str) -> str:
        return f"/v2/{self.name}/{kind}/{name}"

    def _check(self, data: bytes, digest: Digest, what: str) -> None:
        hashed = spec.hasher(digest)
        hashed.update(data)
        self._compare(hashed, digest, what)

    def _compare(self, hashed: hashlib._Hash, digest: Digest, what: str) -> None:
        if hashed.hexdigest() != digest.partition(":")[2]:
            raise IntegrityError(
                f"Registry {self.transport.host} sent a {what} that hashes to "
                f"{hashed.name}:{hashed.hexdigest()}, not {digest}."
            )


def _content_type(answer: Response) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip()
