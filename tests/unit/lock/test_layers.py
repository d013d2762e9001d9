"""The lock's memory of weight layers: what a bake came to is looked for the next time, not fetched."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from plans import plan_of

from podkiln.errors import LockError
from podkiln.lock import layers, locations
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.oci.spec import Descriptor, Digest
from podkiln.weights.bake import BakeResult, remembered

if TYPE_CHECKING:
    from podkiln.plan.weight_layers import WeightLayerSpec


def bundles() -> tuple[WeightLayerSpec, ...]:
    return plan_of("baked", no_weights=False).bundles


def baked(number: int) -> BakeResult:
    made = bundles()[number]
    digest = Digest("sha256:" + str(number) * 64)
    return BakeResult(made, Descriptor(spec.LAYER, digest, made.size), "uploaded", made.content_bytes, 1.0)


def test_nothing_is_remembered_before_the_first_bake(tmp_path: Path) -> None:
    assert layers.read(tmp_path / "layers.json") == {}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    assert layers.write(path, remembered([baked(1), baked(2)]))
    assert layers.write(path, remembered([baked(3)]))
    assert layers.read(path) == {
        bundles()[number].recipe: Digest("sha256:" + str(number) * 64) for number in (1, 2, 3)
    }


def test_what_is_known_is_no_news_and_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    layers.write(path, remembered([baked(1)]))
    before = path.stat().st_mtime_ns
    assert not layers.write(path, remembered([baked(1)]))
    assert path.stat().st_mtime_ns == before


def test_order_of_baking_does_not_show(tmp_path: Path) -> None:
    layers.write(tmp_path / "a", remembered([baked(1), baked(2)]))
    layers.write(tmp_path / "b", remembered([baked(2), baked(1)]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_where_layers_were_put_is_remembered_the_newest_last(tmp_path: Path) -> None:
    path, digest = tmp_path / "layers.json", Digest("sha256:" + "1" * 64)
    names = [Reference.parse(f"ghcr.io/you/app{number}:tag") for number in range(10)]
    for name in names[:2]:
        assert layers.write(path, remembered([baked(1)]), name)
    assert not layers.write(path, remembered([baked(1)]), names[0])
    assert not layers.write(path, remembered([baked(1)]))
    assert [place.name for place in layers.places(path)[digest]] == [name.name for name in names[:2]]
    for name in names:
        layers.write(path, remembered([baked(1)]), name)
    assert [place.name for place in layers.places(path)[digest]] == [name.name for name in names[2:]]


def test_a_layer_that_came_to_something_else_is_nowhere_yet(tmp_path: Path) -> None:
    path, name = tmp_path / "layers.json", Reference.parse("ghcr.io/you/app")
    layers.write(path, remembered([baked(1)]), name)
    other = replace(baked(1), blob=Descriptor(spec.LAYER, Digest("sha256:" + "2" * 64), 1))
    layers.write(path, remembered([other]))
    assert layers.places(path) == {other.blob.digest: ()}


def test_a_place_that_is_no_name_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    row = {"name": "n", "digest": "sha256:" + "1" * 64, "size": 1, "places": ["UPPER CASE"]}
    path.write_text(json.dumps({"schema_version": 1, "layers": {"sha256:" + "2" * 64: row}}))
    says = r"layers\.json cannot be read: .*places\[0\]: 'UPPER CASE' is not an image name"
    with pytest.raises(LockError, match=says):
        layers.places(path)


@pytest.mark.parametrize("text", ["", "{", '{"layers": {"x": {}}}', '{"layers": {}, "more": 1}'])
def test_a_damaged_memory_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_text(text)
    with pytest.raises(LockError, match=r"layers\.json cannot be read: ") as error:
        layers.read(path)
    assert error.value.hint == "Delete it: the next bake writes it again."


def test_it_lies_beside_the_other_locks() -> None:
    assert layers.path_of(plan_of("lazy").described) == locations.LOCKS / "layers.json"
    own = Path(__file__).parents[2] / "fixtures/variants/asks.yaml"
    assert layers.path_of(plan_of(str(own)).described) == own.parent / "asks.locks" / "layers.json"


def test_two_that_write_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "layers.json", layers._read

    def slow(path: Path) -> layers.LayersLock:
        found = read(path)
        time.sleep(0.1)
        return found

    monkeypatch.setattr(layers, "_read", slow)
    threads = [
        threading.Thread(target=layers.write, args=(path, remembered([baked(number)]))) for number in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read(path).layers) == 2
