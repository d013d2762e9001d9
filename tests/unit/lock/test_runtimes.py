"""What a runtime came to is remembered by what it was made from, beside the other locks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from plans import plan_of

from podkiln.errors import LockError
from podkiln.lock import locations, runtimes
from podkiln.lock.runtimes import (
    MAX_OWN,
    MAX_RUNTIMES,
    OwnLayers,
    PushedLayers,
    RememberedRuntime,
    RuntimeLayer,
)
from podkiln.oci import spec
from podkiln.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HERE, THERE = Reference.parse("ghcr.io/you/podkiln"), Reference.parse("docker.io/you/podkiln")


def runtime(seed: str = "a") -> RememberedRuntime:
    layer = RuntimeLayer(
        digest=spec.digest_of(seed.encode()), size=9, diff_id=spec.digest_of(f"{seed} plain".encode())
    )
    history = ({"created_by": "base"},)
    return RememberedRuntime(name="lazy", layers=(layer,), base=1, settings={"Env": ["A=1"]}, history=history)


def test_it_is_found_again_with_the_repositories_that_have_it(tmp_path: Path) -> None:
    path, recipe = tmp_path / "runtimes.json", spec.digest_of(b"recipe")
    assert runtimes.read(path) == {}
    for place in (HERE, THERE, HERE):
        runtimes.write(path, recipe, runtime(), place)
    (found,) = runtimes.read(path).values()
    assert found.places == (HERE.name, THERE.name)
    assert found.layers == runtime().layers
    assert runtimes.places(path) == {found.layers[0].digest: (HERE, THERE)}


def test_another_result_of_one_recipe_takes_its_place(tmp_path: Path) -> None:
    """As where apt is not locked."""
    path, recipe = tmp_path / "runtimes.json", spec.digest_of(b"recipe")
    runtimes.write(path, recipe, runtime("a"), HERE)
    runtimes.write(path, recipe, runtime("b"), THERE)
    (found,) = runtimes.read(path).values()
    assert (found.layers, found.places) == (runtime("b").layers, (THERE.name,))


def test_podkilns_own_layers_are_remembered_beside_it(tmp_path: Path) -> None:
    path, recipe = tmp_path / "runtimes.json", spec.digest_of(b"recipe")
    runtimes.write(path, recipe, runtime(), HERE)
    own = OwnLayers(name="lazy", layers=runtime("own").layers)
    for number in range(MAX_OWN + 1):
        runtimes.write_own(path, spec.digest_of(b"%d" % number), own)
    found = PushedLayers.read(path, recipe, spec.digest_of(b"%d" % MAX_OWN))
    assert found.runtime
    assert found.runtime.layers == runtime().layers
    assert found.own
    assert found.own.layers == own.layers
    assert PushedLayers.read(path, recipe, spec.digest_of(b"0")).own is None, "the one pushed longest ago"
    runtimes.forget(path, recipe)
    assert PushedLayers.read(path, recipe, spec.digest_of(b"1")).own, "it is not the runtime's"
    data = json.loads(path.read_text())
    data["own"][spec.digest_of(b"1")]["layers"][0]["size"] = 10
    path.write_text(json.dumps(data))
    with pytest.raises(LockError, match="is not what was written there"):
        runtimes.read(path)


def test_those_pushed_longest_ago_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "runtimes.json"
    recipes = [spec.digest_of(str(number).encode()) for number in range(MAX_RUNTIMES + 1)]
    for recipe in recipes:
        runtimes.write(path, recipe, runtime(), HERE)
    assert list(runtimes.read(path)) == recipes[1:]


@pytest.mark.parametrize("text", ["", "{", '{"runtimes": {"x": {}}}', '{"runtimes": {}, "more": 1}'])
def test_a_damaged_memory_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "runtimes.json"
    path.write_text(text)
    with pytest.raises(LockError, match=r"runtimes\.json cannot be read: ") as error:
        runtimes.read(path)
    assert error.value.hint == "Delete it: the next push writes it again."


def test_it_lies_beside_the_other_locks_or_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    described = plan_of("lazy").described
    assert runtimes.path_of(described, substituted=False) == locations.LOCKS / "runtimes.json"
    assert runtimes.path_of(described, substituted=True) == tmp_path / "podkiln" / "runtimes.json"


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry["layers"].pop(),
        lambda entry: entry["layers"].append(entry["layers"][0]),
        lambda entry: entry["layers"][0].update(diff_id="sha256:" + "0" * 64),
        lambda entry: entry["layers"][0].update(size=10),
        lambda entry: entry.update(history=[]),
        lambda entry: entry.update(base=99),
        lambda entry: entry.update(settings={"User": "nobody"}),
    ],
)
def test_what_was_changed_by_hand_or_by_a_merge_is_one_sentence(
    change: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    path, recipe = tmp_path / "runtimes.json", spec.digest_of(b"recipe")
    made = runtime()
    runtimes.write(path, recipe, made.model_copy(update={"layers": made.layers * 2}), HERE)
    data = json.loads(path.read_text())
    change(data["runtimes"][recipe])
    path.write_text(json.dumps(data))
    with pytest.raises(LockError, match="is not what was written there") as error:
        runtimes.read(path)
    assert error.value.hint == "Delete it: the next push writes it again."


@pytest.mark.parametrize("text", ["{", '{"schema_version": 1, "runtimes": {}, "more": 1}'])
def test_a_damaged_memory_of_this_machine_is_begun_anew(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path, recipe = runtimes.path_of(plan_of("lazy").described, substituted=True), spec.digest_of(b"recipe")
    path.parent.mkdir()
    path.write_text(text)
    assert runtimes.read(path) == {}
    runtimes.write(path, recipe, runtime(), HERE)
    assert list(runtimes.read(path)) == [recipe]


def test_what_a_registry_has_lost_is_forgotten(tmp_path: Path) -> None:
    path, recipes = tmp_path / "runtimes.json", [spec.digest_of(b"1"), spec.digest_of(b"2")]
    for recipe in recipes:
        runtimes.write(path, recipe, runtime(), HERE)
    runtimes.forget(path, recipes[0])
    assert list(runtimes.read(path)) == recipes[1:]
