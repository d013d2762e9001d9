"""Pushing an image from its layout: blobs, then the config, then the manifest, the tag last."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from podkiln.errors import UsageError
from podkiln.oci import spec
from podkiln.oci.reference import DEFAULT_TAG
from podkiln.registry.client import Repository
from podkiln.registry.errors import SettlingError, UnsettledError
from podkiln.registry.parallel import at_once
from podkiln.registry.upload import Progress, Upload, ignore_progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podkiln.oci.layout import Layout
    from podkiln.oci.reference import Reference
    from podkiln.oci.spec import Descriptor, Digest
    from podkiln.registry.options import RegistryOptions


@dataclass(frozen=True)
class PushedBlob:
    """What became of one blob: its size in bytes, and how it came to be there."""

    digest: Digest
    size: int
    how: Literal["uploaded", "mounted", "existing"]
    seconds: float


@dataclass(frozen=True)
class PushReport:
    """What a push did; `layers` are in the order of the manifest, each once, `config` is the last blob."""

    reference: str
    digest: Digest
    layers: tuple[PushedBlob, ...]
    config: PushedBlob
    seconds: float

    @property
    def uploaded_bytes(self) -> int:
        """Bytes that were sent."""
        return self._bytes("uploaded")

    @property
    def mounted_bytes(self) -> int:
        """Bytes that the registry took from another of its repositories."""
        return self._bytes("mounted")

    @property
    def existing_bytes(self) -> int:
        """Bytes that were there already."""
        return self._bytes("existing")

    def _bytes(self, how: str) -> int:
        return sum(blob.size for blob in (*self.layers, self.config) if blob.how == how)


def push(
    layout: Layout,
    reference: Reference,
    *,
    on_progress: Progress | None = None,
    settings: RegistryOptions | None = None,
    mount_from: Sequence[str] = (),
) -> PushReport:
    """Push an image; its tag moves only when all else is there, and is read back.

    Args:
        layout: The image.
        reference: Its name; without a tag, `latest`.
        on_progress: Progress callback (name, bytes done, bytes in all).
        settings: Options of registry connections.
        mount_from: Repositories of the same registry that may hold some of the blobs.

    Raises:
        RegistryError: The registry refused or could not be reached.
        IntegrityError: A blob of the layout, or what the registry says it holds, is not what it should be.
    """
    if reference.digest not in (None, layout.descriptor.digest):
        raise UsageError(
            f"{reference} asks for another digest than the image has: {layout.descriptor.digest}."
        )
    begun = time.monotonic()
    tag = reference.tag or DEFAULT_TAG
    others = [name for name in mount_from if name != reference.repository]
    with Repository(reference, settings, push=True, mount_from=others) as repository:
        repository.ping()
        sender = _Sender(repository, layout, on_progress or ignore_progress, others)
        *layers, config = layout.blobs
        sent = sender.send_all(layers)
        sent_config = sender.send(config)
        digest = layout.descriptor.digest
        _write(sender, repository, digest, layout)
        _write(sender, repository, tag, layout)
        _read_back(repository, tag, layout)
    seconds = time.monotonic() - begun
    return PushReport(str(reference.with_tag(tag)), digest, tuple(sent), sent_config, seconds)


@dataclass(frozen=True)
class _Stored:
    """A blob of a layout, to be uploaded."""

    layout: Layout
    blob: Descriptor

    @property
    def name(self) -> str:
        return spec.short(self.blob.digest)

    @property
    def size(self) -> int:
        return self.blob.size

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        return self.layout.chunks(self.blob, offset)


class _Sender:
    """Brings blobs of one layout into one repository by the cheapest way there is."""

    def __init__(
        self, repository: Repository, layout: Layout, on_progress: Progress, mount_from: Sequence[str]
    ) -> None:
        self._repository = repository
        self._layout = layout
        self._on_progress = on_progress
        self._mount_from = mount_from

    def send_all(self, blobs: Sequence[Descriptor]) -> list[PushedBlob]:
        """Send several at once. The first failure stops the others, and is the one that is raised."""
        return at_once(self._repository.transport, blobs, self.send)

    def send(self, blob: Descriptor) -> PushedBlob:
        """See that a blob is there: it is already, or by mount, or by upload."""
        begun = time.monotonic()
        how = self._bring(blob)
        if how != "uploaded":
            self._on_progress(spec.short(blob.digest), blob.size, blob.size)
        return PushedBlob(blob.digest, blob.size, how, time.monotonic() - begun)

    def repair(self) -> bool:
        """Send again what the registry no longer knows and lies here; False when that was not what it lacks.

        What lies elsewhere only, as weights do that were streamed, cannot be brought from here.
        """
        self._repository.forget()
        lacking = [blob for blob in self._layout.blobs if not self._repository.blob_exists(blob)]
        here = [blob for blob in lacking if self._layout.blob_path(blob.digest).is_file()]
        self.send_all(here)
        return bool(here) and len(here) == len(lacking)

    def _bring(self, blob: Descriptor) -> Literal["uploaded", "mounted", "existing"]:
        if self._repository.blob_exists(blob):
            return "existing"
        if any(self._repository.mount(blob, other) for other in self._mount_from):
            return "mounted"
        Upload(self._repository, _Stored(self._layout, blob), self._on_progress).run()
        return "uploaded"


def _write(sender: _Sender, repository: Repository, name: str, layout: Layout) -> None:
    """Write the manifest under its digest or a tag; once more if a blob had to be sent again for it."""
    try:
        repository.put_manifest(name, layout.manifest_bytes, layout.manifest.media_type)
    except UnsettledError:
        if not sender.repair():
            raise
        repository.put_manifest(name, layout.manifest_bytes, layout.manifest.media_type)


def _read_back(repository: Repository, tag: str, layout: Layout) -> None:
    """Read the manifest back: the report names what the registry holds, not what was sent."""

    def once() -> None:
        found, data = repository.manifest(tag, written=True)
        if found.digest != layout.descriptor.digest or data != layout.manifest_bytes:
            host = repository.transport.host
            raise SettlingError(
                f"After the push, tag {tag} of {repository.name} at {host} names {found.digest}, "
                f"not {layout.descriptor.digest}.",
                hint="Another push moved the tag, or the registry still shows the old one: check later with "
                "`./build.py verify`.",
            )

    repository.transport.retrying(once)
    repository.blob(layout.manifest.config, written=True)  # has the digest, or IntegrityError
