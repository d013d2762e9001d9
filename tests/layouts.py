"""Small OCI layouts for tests, written by hand so that they can also be written wrong."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

from podkiln.oci import spec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def layer_of(**files: str) -> bytes:
    """Return a tar with some small files, times at 0."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def put_blob(path: Path, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    """Write a blob into a layout and return its descriptor."""
    digest = spec.digest_of(data)
    file = path / "blobs" / digest.replace(":", "/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return {"mediaType": media_type, "digest": digest, "size": len(data), **more}


def put_image(
    path: Path, layers: Sequence[bytes], architecture: str = "amd64", *, plain: bool = False
) -> dict[str, Any]:
    """Write an image of gzip or plain layers into a layout and return the descriptor of its manifest."""
    stored = [
        put_blob(path, layer, spec.LAYER)
        if plain
        else put_blob(path, gzip.compress(layer, mtime=0), spec.LAYER_GZIP)
        for layer in layers
    ]
    config = {
        "os": "linux",
        "architecture": architecture,
        "config": {"Labels": {"who": "test"}},
        "rootfs": {"type": "layers", "diff_ids": [spec.digest_of(layer) for layer in layers]},
        "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": spec.MANIFEST,
        "config": put_blob(path, spec.canonical_json(config), spec.CONFIG),
        "layers": stored,
    }
    platform = {"os": "linux", "architecture": architecture}
    return put_blob(path, spec.canonical_json(manifest), spec.MANIFEST, platform=platform)


def put_index(path: Path, *manifests: dict[str, Any]) -> Path:
    """Write the two files at the top of a layout."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return path


def make_layout(path: Path, *layers: bytes, plain: bool = False) -> Path:
    """Write a layout with one image; two small layers when none are given."""
    return put_index(path, put_image(path, layers or (layer_of(a="one"), layer_of(b="two")), plain=plain))
