"""OCI layouts: what is read, each damage in one sentence, and the archive for `docker load`."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from layouts import layer_of, make_layout, put_blob, put_image, put_index

from podkiln.errors import IntegrityError
from podkiln.oci import layout, spec
from podkiln.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_layout_is_read(tmp_path: Path) -> None:
    image = layout.read(make_layout(tmp_path / "l"), full=True)
    assert image.config.labels == {"who": "test"}
    assert [blob.media_type for blob in image.blobs] == [spec.LAYER_GZIP, spec.LAYER_GZIP, spec.CONFIG]
    assert spec.digest_of(image.manifest_bytes) == image.descriptor.digest
    assert image.size == sum(image.blob_path(blob.digest).stat().st_size for blob in image.blobs)


def test_a_layer_used_twice_is_one_blob(tmp_path: Path) -> None:
    image = layout.read(make_layout(tmp_path / "l", layer_of(a="x"), layer_of(a="x")))
    assert len(image.manifest.layers) == 2
    assert len(image.blobs) == 2


def test_the_platform_chooses_among_several(tmp_path: Path) -> None:
    amd, arm = (put_image(tmp_path, [layer_of(a=arch)], arch) for arch in ("amd64", "arm64"))
    attestation = put_blob(
        tmp_path, b"{}", spec.MANIFEST, annotations={"vnd.docker.reference.type": "attestation-manifest"}
    )
    inner = json.dumps({"schemaVersion": 2, "manifests": [amd, arm, attestation]}).encode()
    put_index(tmp_path, put_blob(tmp_path, inner, spec.INDEX))
    image = layout.read(tmp_path, spec.Platform.parse("linux/arm64"))
    assert image.descriptor.digest == arm["digest"]
    with pytest.raises(IntegrityError, match="no image for linux/riscv64"):
        layout.read(tmp_path, spec.Platform.parse("linux/riscv64"))


def test_two_images_and_no_platform_are_refused(tmp_path: Path) -> None:
    put_index(tmp_path, *(put_image(tmp_path, [layer_of(a=arch)], arch) for arch in ("amd64", "arm64")))
    with pytest.raises(IntegrityError, match=r"2 images \(linux/amd64, linux/arm64\)"):
        layout.read(tmp_path)


def _rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change manifest and config of a layout; digests are put right again, so only the change is wrong."""
    image = layout.read(path)
    manifest, config = json.loads(image.manifest_bytes), dict(image.config.document)
    change(manifest, config)
    lie = manifest["config"]["size"] - image.manifest.config.size
    manifest["config"] = put_blob(path, spec.canonical_json(config), spec.CONFIG)
    manifest["config"]["size"] += lie
    put_index(path, put_blob(path, spec.canonical_json(manifest), spec.MANIFEST))


def _lose_diff_id(_: dict[str, Any], config: dict[str, Any]) -> None:
    config["rootfs"]["diff_ids"].pop()


def _lose_history(_: dict[str, Any], config: dict[str, Any]) -> None:
    config["history"].pop()


def _huge_config(manifest: dict[str, Any], _: dict[str, Any]) -> None:
    manifest["config"]["size"] += 9_000_000


def _layer_file(path: Path) -> Path:
    image = layout.read(path)
    return image.blob_path(image.manifest.layers[0].digest)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _flip_manifest(path: Path) -> None:
    image = layout.read(path)
    _flip(image.blob_path(image.descriptor.digest))


def _flip_config(path: Path) -> None:
    image = layout.read(path)
    _flip(image.blob_path(image.manifest.config.digest))


DAMAGES: list[tuple[str, Callable[[Path], Any]]] = [
    ("not an OCI layout: oci-layout could not be read", lambda path: (path / "oci-layout").unlink()),
    ("oci-layout is not JSON", lambda path: (path / "oci-layout").write_text("x")),
    ("version '2.0.0'", lambda path: (path / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')),
    ("index.json could not be read", lambda path: (path / "index.json").unlink()),
    ("index.json is not JSON", lambda path: (path / "index.json").write_text("{")),
    ("index.json is larger", lambda path: (path / "index.json").write_bytes(b" " * (5 << 20))),
    ("holds no image", put_index),
    ("is damaged: its bytes hash to sha256:", _flip_manifest),
    ("is damaged: its bytes hash to sha256:", _flip_config),
    ("is damaged: its bytes hash to sha256:", lambda path: _flip(_layer_file(path))),
    ("is missing", lambda path: _layer_file(path).unlink()),
    ("bytes, not the", lambda path: _layer_file(path).write_bytes(b"short")),
    ("2 layers, but its config has 1 diff_ids", lambda path: _rewrite(path, _lose_diff_id)),
    ("history lists 1", lambda path: _rewrite(path, _lose_history)),
    ("manifests and configs have less", lambda path: _rewrite(path, _huge_config)),
]


@pytest.mark.parametrize(("says", "damage"), DAMAGES)
def test_every_damage_is_one_sentence(tmp_path: Path, says: str, damage: Callable[[Path], Any]) -> None:
    path = make_layout(tmp_path / "l")
    damage(path)
    with pytest.raises(IntegrityError) as caught:
        layout.read(path, full=True)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_layout(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(IntegrityError, match="not an OCI layout"):
        layout.read(tmp_path / "f")


@pytest.mark.parametrize("offset", [0, 1, 3, 7, 8, 15, 16])
def test_chunks_begin_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    path = make_layout(tmp_path / "l")
    data = b"0123456789abcdef"
    blob = spec.Descriptor.from_json(put_blob(path, data, spec.LAYER), "b")
    monkeypatch.setattr(layout, "CHUNK", 5)
    assert b"".join(layout.read(path).chunks(blob, offset)) == data[offset:]


@pytest.mark.parametrize("offset", [0, 9])
def test_the_end_of_a_wrong_blob_is_never_given_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    """A byte that is wrong anywhere is found before the last chunk, and so before an upload is whole."""
    path = make_layout(tmp_path / "l")
    blob = spec.Descriptor.from_json(put_blob(path, b"0123456789", spec.LAYER), "b")
    image = layout.read(path)
    image.blob_path(blob.digest).write_bytes(b"X123456789")
    monkeypatch.setattr(layout, "CHUNK", 4)
    given: list[bytes] = []
    with pytest.raises(IntegrityError, match="is damaged"):
        given.extend(image.chunks(blob, offset))
    assert len(b"".join(given)) < 10 - offset
    image.blob_path(blob.digest).write_bytes(b"0123456789 and more")
    with pytest.raises(IntegrityError, match="does not have the 10 bytes"):
        given.extend(image.chunks(blob, offset))


def test_the_archive_is_a_layout_and_a_docker_save(tmp_path: Path) -> None:
    image = layout.read(make_layout(tmp_path / "l"))
    names = [Reference.parse("you/app:v1"), Reference.parse("localhost:5000/you/app")]
    (tmp_path / "x").mkdir()
    archive = b"".join(layout.docker_archive(image, names))
    subprocess.run(["tar", "-x", "-C", tmp_path / "x"], input=archive, check=True)
    (saved,) = json.loads((tmp_path / "x/manifest.json").read_text())
    assert saved["RepoTags"] == ["you/app:v1", "localhost:5000/you/app:latest"]
    assert [spec.digest_of((tmp_path / "x" / name).read_bytes()) for name in saved["Layers"]] == [
        layer.digest for layer in image.manifest.layers
    ]
    index = json.loads((tmp_path / "x/index.json").read_text())
    assert [entry["annotations"] for entry in index["manifests"]] == [
        {"io.containerd.image.name": "docker.io/you/app:v1", "org.opencontainers.image.ref.name": "v1"},
        {
            "io.containerd.image.name": "localhost:5000/you/app:latest",
            "org.opencontainers.image.ref.name": "latest",
        },
    ]
    assert layout.read(tmp_path / "x", full=True).manifest == image.manifest


def test_the_archive_of_a_damaged_layer_never_ends_well(tmp_path: Path) -> None:
    path = make_layout(tmp_path / "l")
    image = layout.read(path)
    _flip(_layer_file(path))
    with pytest.raises(IntegrityError, match="is damaged"):
        b"".join(layout.docker_archive(image, []))
