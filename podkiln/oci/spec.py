"""The nouns of OCI images: digests, descriptors, manifests, indexes, image configs.

Sources: OCI image-spec v1.1 (descriptor.md, manifest.md, image-index.md, config.md, media-types.md).
Reading is strict about what podkiln relies on and silent about the rest: the specification lets anyone
add fields. What is malformed is an IntegrityError that names the document and the field.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NewType, Self, TypeVar

from podkiln.errors import IntegrityError
from podkiln.util import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Digest = NewType("Digest", str)

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = LAYER + "+gzip"
LAYER_ZSTD = LAYER + "+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
INDEXES = (INDEX, DOCKER_INDEX)

REF_NAME = "org.opencontainers.image.ref.name"  # image-spec annotations.md: a tag, in an index of a layout

MAX_MANIFEST_BYTES = 4 << 20
"""Registries take manifests up to 4 MiB (distribution-spec v1.1, Pushing Manifests)."""

_MOST_NESTED = 64
_MOST_BYTES = 1 << 50
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,30})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
_T = TypeVar("_T")

_MOST_VALUES = 200_000  # of one JSON document; an image of 127 layers has some 1000


def parse_digest(text: str, where: str = "A digest") -> Digest:
    """Return `text` as a digest: sha256 or sha512, lower-case hex (descriptor.md, Digests)."""
    if not _DIGEST.fullmatch(text):
        raise IntegrityError(
            f"{where} reads {text[:160]!r}, which is not sha256: and 64 lower-case hex digits."
        )
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """Return the sha256 digest of some bytes."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def hasher(digest: Digest) -> hashlib._Hash:
    """Return a fresh hash of the algorithm that a digest names."""
    return hashlib.new(digest.partition(":")[0])


def short(digest: Digest) -> str:
    """Return a digest as people read it: the algorithm and 12 digits."""
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}:{digits[:12]}"


def canonical_json(value: Any) -> bytes:
    """Return the one encoding podkiln gives to a JSON value: sorted keys, no blanks, UTF-8.

    Equal values have equal bytes, so equal digests.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """Return a JSON object; anything else is an IntegrityError that begins with `where`.

    So is what readers take differently: a duplicate key in one object, half a surrogate pair, NaN,
    any encoding but UTF-8.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise IntegrityError(
            f"{where} has {len(data)} bytes; such documents have {MAX_MANIFEST_BYTES} at most."
        )
    if sum(data.count(sign) for sign in (b",", b"{", b"[")) > _MOST_VALUES:
        raise IntegrityError(f"{where} holds more than {_MOST_VALUES} values.")
    try:
        value = strict_json.parse(data.decode())
        _check_depth(value)
        canonical_json(value)
    except UnicodeError as wrong:  # its own words hold the whole document
        raise IntegrityError(f"{where} is not JSON: it holds text that is not UTF-8.") from wrong
    except ValueError as wrong:
        raise IntegrityError(f"{where} is not JSON: {wrong}.") from wrong
    if not isinstance(value, dict):
        raise IntegrityError(f"{where} is not a JSON object.")
    return value


def _check_depth(value: Any) -> None:
    """Refuse what is nested far deeper than documents of images are."""
    level = [value]
    for _ in range(_MOST_NESTED):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _field(obj: Mapping[str, Any], key: str, kind: type[_T], where: str, default: _T | None = None) -> _T:
    """Return obj[key] when it has the type it must have."""
    value = obj.get(key)
    if value is None:
        value = default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        problem = "is missing" if value is None else f"is not of type {kind.__name__}"
        raise IntegrityError(f"{where}: the field {key!r} {problem}.")
    return value


def _is_version_2(obj: Mapping[str, Any]) -> bool:
    """Tell whether a document has the schemaVersion of both formats, OCI's and Docker's: 2, and not 2.0."""
    return repr(obj.get("schemaVersion")) == "2"


def _text_map(obj: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    found = _field(obj, key, dict, where, {})
    if not all(isinstance(value, str) for value in found.values()):
        raise IntegrityError(f"{where}: the field {key!r} holds something that is not text.")
    return dict(found)


def _objects(obj: Mapping[str, Any], key: str, where: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield (where, object) for each entry of a list of objects."""
    for number, entry in enumerate(_field(obj, key, list, where, [])):
        place = f"{where}: {key}[{number}]"
        if not isinstance(entry, dict):
            raise IntegrityError(f"{place} is not a JSON object.")
        yield place, entry


@dataclass(frozen=True)
class Platform:
    """What an image runs on (image-index.md, platform)."""

    os: str
    architecture: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `linux/amd64` or `linux/arm64/v8`, as docker's --platform."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise IntegrityError(f"{text!r} is not a platform; write one like linux/amd64.")
        return cls(*parts)

    @classmethod
    def from_json(cls, obj: Mapping[str, Any], where: str) -> Self:
        """Read a platform object."""
        variant = _field(obj, "variant", str, where, "") or None
        return cls(_field(obj, "os", str, where), _field(obj, "architecture", str, where), variant)

    def serves(self, wanted: Platform) -> bool:
        """Tell whether an image for this platform is what `wanted` asks for; no variant means any."""
        same = (self.os, self.architecture) == (wanted.os, wanted.architecture)
        return same and wanted.variant in (None, self.variant)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True)
class Descriptor:
    """Names some content: what it is, its digest, its size in bytes (descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None

    @classmethod
    def from_json(cls, obj: Mapping[str, Any], where: str) -> Self:
        """Read a descriptor object."""
        size = _field(obj, "size", int, where)
        if size < 0:
            raise IntegrityError(f"{where}: the size {str(size)[:40]} is negative.")
        if size > _MOST_BYTES:
            raise IntegrityError(f"{where}: the size is larger than any blob.")
        platform = _field(obj, "platform", dict, where, {}) if obj.get("platform") is not None else None
        return cls(
            media_type=_field(obj, "mediaType", str, where),
            digest=parse_digest(_field(obj, "digest", str, where), f"{where}: the digest"),
            size=size,
            annotations=_text_map(obj, "annotations", where),
            platform=Platform.from_json(platform, where) if platform is not None else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the object that stands for this descriptor in a manifest or index."""
        obj: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            obj["annotations"] = dict(self.annotations)
        if self.platform:
            obj["platform"] = {key: value for key, value in vars(self.platform).items() if value}
        return obj


@dataclass(frozen=True)
class Manifest:
    """An image manifest: one config and the layers, lowest first (manifest.md)."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Read a manifest."""
        obj = parse_json(data, where)
        media_type = _field(obj, "mediaType", str, where, MANIFEST)
        if not _is_version_2(obj) or media_type not in MANIFESTS:
            raise IntegrityError(f"{where} is not an image manifest of OCI or Docker schema 2.")
        return cls(
            media_type=media_type,
            config=Descriptor.from_json(_field(obj, "config", dict, where), f"{where}: config"),
            layers=tuple(
                Descriptor.from_json(entry, place) for place, entry in _objects(obj, "layers", where)
            ),
            annotations=_text_map(obj, "annotations", where),
        )

    def encode(self) -> bytes:
        """Return the canonical bytes of this manifest."""
        obj: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.annotations:
            obj["annotations"] = dict(self.annotations)
        return canonical_json(obj)


@dataclass(frozen=True)
class Index:
    """An image index: manifests, one for each platform (image-index.md)."""

    manifests: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Read an index."""
        obj = parse_json(data, where)
        if not _is_version_2(obj) or "manifests" not in obj:
            raise IntegrityError(f"{where} is not an image index.")
        return cls(
            tuple(Descriptor.from_json(entry, place) for place, entry in _objects(obj, "manifests", where))
        )


def _history(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """Return an entry of a config's history when its fields have the types that engines read (config.md)."""
    for key in ("created_by", "author", "comment"):
        _field(entry, key, str, where, "")
    _field(entry, "empty_layer", bool, where, default=False)
    if not is_time(entry.get("created", "1970-01-01T00:00:00Z")):
        raise IntegrityError(f"{where}: the field 'created' is not a time as RFC 3339 has it.")
    return entry


def is_time(value: object) -> bool:
    """Tell whether a value of a document is a time as Go reads it: RFC 3339, or null for none."""
    if value is None:
        return True
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value[:19])
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class ImageConfig:
    """An image's config: how it runs and what its layers are once unpacked (config.md)."""

    document: Mapping[str, Any]
    platform: Platform
    diff_ids: tuple[Digest, ...]
    history: tuple[Mapping[str, Any], ...]
    labels: Mapping[str, str]

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Read an image config."""
        obj = parse_json(data, where)
        rootfs = _field(obj, "rootfs", dict, where)
        diff_ids = _field(rootfs, "diff_ids", list, f"{where}: rootfs")
        return cls(
            document=obj,
            platform=Platform.from_json(obj, where),
            diff_ids=tuple(parse_digest(str(entry), f"{where}: a diff_id") for entry in diff_ids),
            history=tuple(_history(entry, place) for place, entry in _objects(obj, "history", where)),
            labels=_text_map(_field(obj, "config", dict, where, {}), "Labels", f"{where}: config"),
        )

    @property
    def layer_history(self) -> tuple[Mapping[str, Any], ...]:
        """The history entries that made a layer."""
        return tuple(entry for entry in self.history if not entry.get("empty_layer"))
