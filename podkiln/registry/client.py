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
    Settling,
    SettlingError,
    UnsettledError,
    is_immutable,
    lacks_blob,
    refuse_page,
    words,
)
from podkiln.registry.headers import number
from podkiln.registry.options import RegistryOptions
from podkiln.registry.reader import AGAIN
from podkiln.registry.transport import Transport
from podkiln.registry.upload_requests import ANY_ANSWER, UploadRequests
from podkiln.util.interrupts import INTERRUPTIONS
from podkiln.util.open_uploads import UPLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podkiln.oci.reference import Reference
    from podkiln.oci.spec import Descriptor, Digest
    from podkiln.registry.http_client import Response

log = logging.getLogger(__name__)

_WRITTEN: Final = frozenset({200, 201, 202})
_PERHAPS_KEPT: Final = frozenset({400, 403, 405, 409, 412, 422, 423})  # said of tags that may not move

BLOBS_CONFIRMED: Final = Settling(
    lacks_blob, "does not know a blob that it confirmed in this run", f"The tag was not moved. {AGAIN}"
)


class Repository(UploadRequests):
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
        super().__init__(reference, Transport(reference.host, scopes, settings), settings.confirmed)
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
        answer = self.transport.ask("POST", path, "mount a blob", expect=ANY_ANSWER, content=b"")
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
