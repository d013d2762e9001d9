"""What an earlier bake put into a layout is found there by the next, and costs no second copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podkiln.oci import spec
from podkiln.plan.image_layers import Layer
from podkiln.weights import local_layers

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = spec.digest_of(b"one"), spec.digest_of(b"two")


def put(image: Path, data: bytes) -> Path:
    path = image / "blobs" / spec.digest_of(data).replace(":", "/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_known_layers_of_the_right_size_are_found(tmp_path: Path) -> None:
    layers = (Layer("a", "weights", "a", 3, ONE), Layer("b", "weights", "b", 4, TWO), Layer("c", "base"))
    assert local_layers.found(layers, tmp_path) == []
    put(tmp_path, b"one")
    put(tmp_path, b"two")  # the plan wants one byte more
    assert local_layers.found(layers, tmp_path) == [ONE]


def test_they_come_along_without_a_copy(tmp_path: Path) -> None:
    layers = [Layer("a", "weights", "a", 3, ONE)]
    old = put(tmp_path / "old", b"one")
    new = tmp_path / "new" / old.relative_to(tmp_path / "old")
    new.parent.mkdir(parents=True)
    local_layers.keep(layers, tmp_path / "old", tmp_path / "new")
    assert new.stat().st_ino == old.stat().st_ino
    local_layers.keep(layers, tmp_path / "old", tmp_path / "new")  # there already
    local_layers.keep(layers, tmp_path / "none", tmp_path / "new")
