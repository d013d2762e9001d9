"""Images as BuildKit exports them, of a few small files."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import zstandard

from podkiln.oci import layout, spec

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.oci.layout import Layout

EPOCH = 1_700_000_000


def tar(*names: str, data: bytes = b"x", time: int = EPOCH) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), time
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def export(place: Path, *layers: tuple[str, bytes], blobs: Path | None = None, zstd: bool = False) -> Layout:
    """Write what BuildKit exports: each layer with the instruction that made it, plain or in zstd."""
    (blobs or place / "blobs").joinpath("sha256").mkdir(parents=True, exist_ok=True)
    if blobs:
        (place / "blobs").symlink_to(blobs)

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digits = hashlib.sha256(data).hexdigest()
        (place / "blobs" / "sha256" / digits).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digits}", "size": len(data)}

    diff_ids = [spec.digest_of(data) for _, data in layers]
    told = [
        blob(spec.LAYER_ZSTD, zstandard.compress(data)) if zstd else blob(spec.LAYER, data)
        for _, data in layers
    ]
    history = [
        {"created_by": word, "created": "2020-01-01T00:00:00Z"} if word != "ENV" else {"empty_layer": True}
        for word, _ in layers
    ]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [*history, {"created_by": "ENV A=1", "empty_layer": True}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": spec.MANIFEST,
        "config": blob(spec.CONFIG, json.dumps(config).encode()),
        "layers": told,
    }
    index = {"schemaVersion": 2, "manifests": [blob(spec.MANIFEST, json.dumps(manifest).encode())]}
    (place / "index.json").write_text(json.dumps(index))
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return layout.read(place)
