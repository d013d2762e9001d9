"""Layers that come while BuildKit exports others: read at once, if they are layers."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
import zstandard
from exports import EPOCH, tar

from podkiln.canonical_layers import early_reader, exported
from podkiln.canonical_layers.compressed import CompressedLayer
from podkiln.canonical_layers.early_reader import EarlyReader
from podkiln.oci import spec

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.oci.spec import Digest


@pytest.fixture(autouse=True)
def small_layers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_reader, "_LEAST", 100)


def put(blobs: Path, content: bytes) -> None:
    """Write a blob as the local content store does: beside, and then in its place."""
    aside = blobs.parent / "ingest"
    aside.write_bytes(content)
    aside.replace(blobs / spec.digest_of(content).partition(":")[2])


def until_found(reader: EarlyReader, digest: Digest) -> None:
    end = time.monotonic() + 20
    while digest not in reader.found:
        assert time.monotonic() < end, reader.found
        time.sleep(0.02)


def test_what_comes_is_read_under_the_digest_of_its_tar(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    old, layer, more = (tar(f"{name}/file", data=os.urandom(400)) for name in ("old", "new", "more"))
    put(blobs, zstandard.compress(old))
    reader = EarlyReader(blobs, EPOCH)
    with reader.running():
        put(blobs, zstandard.compress(layer))
        put(blobs, b'{"schemaVersion": 2, "layers": []}' * 10)
        put(blobs, b"\x28\xb5\x2f\xfd" + os.urandom(400))
        until_found(reader, spec.digest_of(layer))
        put(blobs, zstandard.compress(more))
        until_found(reader, spec.digest_of(more))
    assert spec.digest_of(old) not in reader.found
    path = blobs / spec.digest_of(zstandard.compress(layer)).partition(":")[2]
    whole = CompressedLayer(spec.digest_of(layer), path.stat().st_size, path)
    assert reader.found[whole.diff_id] == exported.read(whole, EPOCH, iter)


def test_what_is_half_read_when_the_build_is_over_is_given_up(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    reader = EarlyReader(blobs, EPOCH)
    with reader.running():
        pass
    put(blobs, zstandard.compress(tar("file", data=os.urandom(400))))
    time.sleep(3 * early_reader._EVERY)
    assert reader.found == {}


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    reader = EarlyReader(tmp_path / "blobs", EPOCH)
    with reader.running():
        (tmp_path / "blobs").mkdir()
        layer = tar("file", data=os.urandom(400))
        put(tmp_path / "blobs", zstandard.compress(layer))
        until_found(reader, spec.digest_of(layer))
