"""OCI image layouts on disk: reading, checking, and the archive that `docker load` takes.

Sources: image-spec v1.1 image-layout.md; for the archive moby image/tarexport/load.go (overlay2 storage:
manifest.json) and containerd images/archive/importer.go (containerd storage: index.json).
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from podkiln.errors import IntegrityError
from podkiln.oci import spec
from podkiln.oci.reference import DEFAULT_TAG

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from podkiln.oci.reference import Reference
    from podkiln.oci.spec import Descriptor, Digest, ImageConfig, Manifest, Platform

CHUNK: Final = 1 << 20
_CONTAINERD_NAME: Final = "io.containerd.image.name"  # the full name; containerd cuts ref.name to the tag
_ATTESTATION: Final = "vnd.docker.reference.type"  # BuildKit's mark on manifests that are not images
LAYOUT_FILE: Final = b'{"imageLayoutVersion":"1.0.0"}'
_MAX_CONFIG_BYTES: Final = 8 << 20  # a config of 127 layers has some 100 KB; more is not one


class DamagedBlobError(IntegrityError):
    """The file of a blob does not have the content that its name says."""

    def __init__(self, message: str, file: Path) -> None:
        super().__init__(message)
        self.file = file


@dataclass(frozen=True)
class Layout:
    """One image in an OCI layout directory; what `read` returns has been checked."""

    path: Path
    descriptor: Descriptor
    manifest: Manifest
    manifest_bytes: bytes
    config: ImageConfig

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The layers, lowest first, each once, and then the config."""
        return tuple({blob.digest: blob for blob in (*self.manifest.layers, self.manifest.config)}.values())

    @property
    def size(self) -> int:
        """Bytes of layers and config as they are stored and sent."""
        return sum(blob.size for blob in self.blobs)

    def blob_path(self, digest: Digest) -> Path:
        """Return where a blob lies."""
        return _blob_path(self.path, digest)

    def chunks(self, blob: Descriptor, offset: int = 0) -> Iterator[bytes]:
        """Yield a blob's bytes from an offset on, hashing all of it.

        The last chunk is only given out once size and digest are right, so a consumer
        never gets the whole of a wrong blob. Raises DamagedBlobError, IntegrityError.
        """
        where = _blob_name(self.path, blob)
        seen, held, hashed = 0, b"", spec.hasher(blob.digest)
        try:
            with self.blob_path(blob.digest).open("rb") as file:
                while seen <= blob.size and (chunk := file.read(CHUNK)):
                    if held:
                        yield held
                    held = chunk[max(0, offset - seen) :]
                    hashed.update(chunk)
                    seen += len(chunk)
        except OSError as wrong:
            raise IntegrityError(f"{where} could not be read: {wrong.strerror}.") from wrong
        if seen != blob.size:
            lost = f"{where} does not have the {blob.size} bytes that its manifest promises."
            raise DamagedBlobError(lost, self.blob_path(blob.digest))
        try:
            _check_digest(hashed, blob, where)
        except IntegrityError as wrong:
            raise DamagedBlobError(str(wrong), self.blob_path(blob.digest)) from None
        if held:
            yield held


def read(path: Path, platform: Platform | None = None, *, full: bool = False) -> Layout:
    """Read the image in a layout directory and check it. Raises IntegrityError, in one sentence.

    Manifest and config are hashed, every blob's size is compared, and config and manifest must agree.

    Args:
        path: The directory with `oci-layout`, `index.json` and `blobs/`.
        platform: Which image, when the layout holds several.
        full: Hash all layers too.
    """
    found = read_documents(path, platform)
    for blob in found.blobs:
        _check_size(path, blob)
        if full:
            for _ in found.chunks(blob):
                pass
    return found


def read_documents(path: Path, platform: Platform | None = None) -> Layout:
    """Read an image as `read` does, without a look at its layers. Raises IntegrityError."""
    where = f"Layout {path}"
    _check_version(path, where)
    index = spec.Index.parse(_read_small(path / "index.json", where), f"{where}: index.json")
    descriptor = _choose(path, index, platform, where)
    name = f"{where}: manifest {spec.short(descriptor.digest)}"
    manifest_bytes = _read_blob(path, descriptor, spec.MAX_MANIFEST_BYTES)
    manifest = spec.Manifest.parse(manifest_bytes, name)
    config = spec.ImageConfig.parse(
        _read_blob(path, manifest.config, _MAX_CONFIG_BYTES),
        f"{where}: config {spec.short(manifest.config.digest)}",
    )
    layout = Layout(path, descriptor, manifest, manifest_bytes, config)
    _check_agreement(layout, name)
    return layout


def _check_version(path: Path, where: str) -> None:
    version = spec.parse_json(_read_small(path / "oci-layout", where), f"{where}: oci-layout")
    if version.get("imageLayoutVersion") != "1.0.0":
        raise IntegrityError(
            f"{where}: oci-layout asks for version {version.get('imageLayoutVersion')!r}, not '1.0.0'."
        )


def _choose(
    path: Path, index: spec.Index, platform: Platform | None, where: str, depth: int = 0
) -> Descriptor:
    """Return the one image manifest of an index, looking into indexes within."""
    found: dict[Digest, Descriptor] = {}
    for entry in index.manifests:
        if entry.media_type in spec.INDEXES and not depth:
            inner = spec.Index.parse(
                _read_blob(path, entry, spec.MAX_MANIFEST_BYTES), f"{where}: index {spec.short(entry.digest)}"
            )
            chosen = _choose(path, inner, platform, where, depth + 1)
            found[chosen.digest] = chosen
        elif entry.media_type in spec.MANIFESTS and _ATTESTATION not in entry.annotations:
            fits = platform is None or entry.platform is None or entry.platform.serves(platform)
            if fits:
                found[entry.digest] = entry
    if len(found) == 1:
        return next(iter(found.values()))
    wanted = f" for {platform}" if platform else ""
    if not found:
        raise IntegrityError(f"{where} holds no image{wanted}.")
    has = ", ".join(str(entry.platform or spec.short(entry.digest)) for entry in found.values())
    raise IntegrityError(f"{where} holds {len(found)} images{wanted} ({has}), and one was expected.")


def _check_agreement(layout: Layout, where: str) -> None:
    layers, diff_ids = len(layout.manifest.layers), len(layout.config.diff_ids)
    if layers != diff_ids:
        raise IntegrityError(f"{where} has {layers} layers, but its config has {diff_ids} diff_ids.")
    history = len(layout.config.layer_history)
    if layout.config.history and history != layers:
        raise IntegrityError(f"{where} has {layers} layers, but its config's history lists {history}.")


def _blob_path(path: Path, digest: Digest) -> Path:
    algorithm, _, digits = digest.partition(":")
    return path / "blobs" / algorithm / digits


def _blob_name(path: Path, blob: Descriptor) -> str:
    return f"Layout {path}: blob {spec.short(blob.digest)}"


def _check_digest(hashed: hashlib._Hash, blob: Descriptor, where: str) -> None:
    if hashed.hexdigest() != blob.digest.partition(":")[2]:
        raise IntegrityError(f"{where} is damaged: its bytes hash to {hashed.name}:{hashed.hexdigest()}.")


def _check_size(path: Path, blob: Descriptor) -> None:
    where = _blob_name(path, blob)
    file = _blob_path(path, blob.digest)
    if not file.is_file():
        raise IntegrityError(f"{where} is missing.")
    if file.stat().st_size != blob.size:
        raise IntegrityError(
            f"{where} has {file.stat().st_size} bytes, not the {blob.size} that its manifest promises."
        )


def _read_blob(path: Path, blob: Descriptor, limit: int) -> bytes:
    """Return a small blob, checked."""
    where = _blob_name(path, blob)
    if blob.size > limit:
        raise IntegrityError(f"{where} is listed with {blob.size} bytes; manifests and configs have less.")
    _check_size(path, blob)
    data = _blob_path(path, blob.digest).read_bytes()
    hashed = spec.hasher(blob.digest)
    hashed.update(data)
    _check_digest(hashed, blob, where)
    return data


def _read_small(file: Path, where: str) -> bytes:
    """Return one of the two files at the top of a layout."""
    try:
        with file.open("rb") as opened:
            data = opened.read(spec.MAX_MANIFEST_BYTES + 1)
    except OSError as wrong:
        raise IntegrityError(
            f"{where} is not an OCI layout: {file.name} could not be read ({wrong.strerror})."
        ) from wrong
    if len(data) > spec.MAX_MANIFEST_BYTES:
        raise IntegrityError(f"{where}: {file.name} is larger than {spec.MAX_MANIFEST_BYTES} bytes.")
    return data


def docker_archive(layout: Layout, names: Sequence[Reference]) -> Iterator[bytes]:
    """Yield a tar that `docker load` takes in both storage modes, without a temporary copy.

    It is an OCI layout (containerd storage reads index.json, names by annotation) and carries the
    manifest.json of `docker save` (overlay2 storage reads RepoTags, Config, Layers). Blobs are checked on
    the way: IntegrityError before the last bytes of a damaged one. A name without a tag gets `latest`.
    """
    names = [name.with_tag(name.tag or DEFAULT_TAG) for name in names]
    yield from _member("oci-layout", len(LAYOUT_FILE), [LAYOUT_FILE])
    index = _archive_index(layout, names)
    yield from _member("index.json", len(index), [index])
    saved = spec.canonical_json(
        [
            {
                "Config": _archive_name(layout.manifest.config.digest),
                "RepoTags": [name.familiar for name in names],
                "Layers": [_archive_name(layer.digest) for layer in layout.manifest.layers],
            }
        ]
    )
    yield from _member("manifest.json", len(saved), [saved])
    manifest = _archive_name(layout.descriptor.digest)
    yield from _member(manifest, len(layout.manifest_bytes), [layout.manifest_bytes])
    for blob in layout.blobs:
        yield from _member(_archive_name(blob.digest), blob.size, layout.chunks(blob))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _archive_index(layout: Layout, names: Sequence[Reference]) -> bytes:
    bare = replace(layout.descriptor, annotations={})
    entries = [
        replace(bare, annotations={_CONTAINERD_NAME: str(name), spec.REF_NAME: name.tag or ""})
        for name in names
    ]
    manifests = [entry.to_json() for entry in entries or [bare]]
    return spec.canonical_json({"schemaVersion": 2, "mediaType": spec.INDEX, "manifests": manifests})


def _archive_name(digest: Digest) -> str:
    return "blobs/" + digest.replace(":", "/")


def _member(name: str, size: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield one file of a tar: header, content, padding. GNU format, for sizes from 8 GiB on."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    yield entry.tobuf(tarfile.GNU_FORMAT)
    yield from chunks
    yield bytes(-size % tarfile.BLOCKSIZE)
