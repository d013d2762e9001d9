"""Weights of random bytes: the same each time, and described as they are."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import files

from podkiln.config import variant
from podkiln.options import BuildRequest
from podkiln.pipeline import planning

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (1 << 20) + 7


def test_files_follow_from_their_number_and_size(tmp_path: Path) -> None:
    made = files.make(tmp_path / "a", 2, SIZE)
    again = files.make(tmp_path / "b", 2, SIZE)
    assert made == again
    assert made[0].sha256 != made[1].sha256
    for each in made:
        data = (tmp_path / "a" / each.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (each.size, each.sha256)


def test_what_an_earlier_run_has_left_is_taken(tmp_path: Path) -> None:
    first = files.make(tmp_path, 1, SIZE)
    path = tmp_path / first[0].name
    written = path.stat().st_mtime_ns
    assert files.make(tmp_path, 1, SIZE) == first
    assert path.stat().st_mtime_ns == written
    path.write_bytes(b"short")
    assert files.make(tmp_path, 1, SIZE) == first
    assert path.stat().st_size == SIZE


def test_the_variant_bakes_them(tmp_path: Path) -> None:
    made = files.make(tmp_path / "files", 2, SIZE)
    path = str(files.describe(made, tmp_path / "variants" / "bench.yaml"))
    plan = planning.make_plan(variant.load(path), BuildRequest.of(variants=(path,)))
    baked = [weight for bundle in plan.bundles for weight in bundle.weights]
    assert [(each.size, each.sha256) for each in baked] == [(each.size, each.sha256) for each in made]
