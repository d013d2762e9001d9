"""Container registries, as the OCI distribution specification has them: reading, and podkiln's own push."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podkiln.oci.reference import DEFAULT_TAG
from podkiln.registry.client import Repository
from podkiln.registry.options import Confirmed, RegistryOptions
from podkiln.registry.push import PushedBlob, PushReport, push
from podkiln.registry.tls import is_local
from podkiln.registry.upload import Progress

if TYPE_CHECKING:
    from podkiln.oci.reference import Reference
    from podkiln.oci.spec import Descriptor, Digest

__all__ = [
    "Confirmed",
    "Progress",
    "PushReport",
    "PushedBlob",
    "RegistryOptions",
    "Repository",
    "blob_exists",
    "is_local",
    "pull_blob",
    "pull_manifest",
    "push",
    "resolve_digest",
]


def pull_manifest(reference: Reference, settings: RegistryOptions | None = None) -> tuple[Descriptor, bytes]:
    """Return a manifest or index and its descriptor; the bytes have the digest.

    Raises RegistryError when it is not there, IntegrityError when it is not what it is said to be.
    """
    with Repository(reference, settings) as repository:
        return repository.manifest(reference.digest or reference.tag or DEFAULT_TAG)


def resolve_digest(reference: Reference, settings: RegistryOptions | None = None) -> Digest:
    """Return what a name stands for now: the digest of its manifest or index, from the bytes themselves."""
    return pull_manifest(reference, settings)[0].digest


def blob_exists(reference: Reference, blob: Descriptor, settings: RegistryOptions | None = None) -> bool:
    """Tell whether a registry holds a blob in this repository."""
    with Repository(reference, settings) as repository:
        return repository.blob_exists(blob)


def pull_blob(reference: Reference, blob: Descriptor, settings: RegistryOptions | None = None) -> bytes:
    """Return a small blob, a config for example; the bytes have the digest."""
    with Repository(reference, settings) as repository:
        return repository.blob(blob)
