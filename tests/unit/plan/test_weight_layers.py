"""Files become layers: big ones alone, small ones together, in declared order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podkiln.config import catalog, variant
from podkiln.config.model import UNRESOLVED
from podkiln.plan import weight_layers
from podkiln.plan.weight_layers import SMALL, WeightFile, WeightLayerSpec, bundles


def weight(model: str, name: str, size: int = 1, sha256: str = "0" * 64) -> WeightFile:
    return WeightFile(model, name, size, sha256, f"huggingface:a/b/{name}", "c" * 40, {"kind": "huggingface"})


def names(dealt: tuple[WeightLayerSpec, ...]) -> list[list[str]]:
    return [[each.destination for each in group.weights] for group in dealt]


DEALT: list[tuple[str, list[WeightFile], list[list[str]]]] = [
    ("nothing", [], []),
    ("one", [weight("m", "a")], [["a"]]),
    ("a byte below the limit", [weight("m", "a", SMALL - 1), weight("m", "b", SMALL - 1)], [["a", "b"]]),
    ("the limit itself", [weight("m", "a", SMALL), weight("m", "b", SMALL)], [["a"], ["b"]]),
    (
        "small ones around a big one",
        [weight("m", "a"), weight("m", "B", SMALL), weight("m", "c"), weight("m", "D", SMALL)],
        [["a", "c"], ["B"], ["D"]],
    ),
    (
        "small ones of two models",
        [weight("m", "a"), weight("m", "b"), weight("n", "c")],
        [["a", "b"], ["c"]],
    ),
    ("a file of two models", [weight("m", "a"), weight("n", "a"), weight("n", "b")], [["a"], ["b"]]),
]


@pytest.mark.parametrize(("weights", "expected"), [row[1:] for row in DEALT], ids=[row[0] for row in DEALT])
def test_files_are_dealt_to_layers(weights: list[WeightFile], expected: list[list[str]]) -> None:
    assert names(bundles(weights)) == expected


WEIGHTS = st.lists(
    st.builds(
        weight, st.sampled_from("mno"), st.text("abcd", min_size=1, max_size=3), st.sampled_from([1, SMALL])
    ),
    max_size=12,
)


@given(WEIGHTS, WEIGHTS)
def test_models_that_are_appended_leave_the_layers_before_them_as_they_are(
    before: list[WeightFile], more: list[WeightFile]
) -> None:
    """So that their chain ids stay, and hosts keep what they have."""
    more = [weight(f"{each.model}-new", each.destination, each.size) for each in more]
    assert bundles(before + more)[: len(bundles(before))] == bundles(before)


def test_a_recipe_is_all_that_a_layer_follows_from_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    one = WeightLayerSpec((weight("m", "a"),))
    moved = WeightFile("other", "a", 1, "0" * 64, "https://mirror/a", None, {"kind": "https"})
    assert WeightLayerSpec((moved,)).recipe == one.recipe
    others = [
        WeightLayerSpec((weight("m", "b"),)),
        WeightLayerSpec((weight("m", "a", 2),)),
        WeightLayerSpec((weight("m", "a", sha256="1" * 64),)),
        WeightLayerSpec((weight("m", "a"), weight("m", "b"))),
        WeightLayerSpec((weight("m", "b"), weight("m", "a"))),
    ]
    recipes = {each.recipe for each in (one, *others)}
    monkeypatch.setattr("podkiln.oci.tar_layer.PACKING", 2)
    assert len({one.recipe, *recipes}) == 7


def test_a_layer_says_what_it_is() -> None:
    alone = WeightLayerSpec((weight("m", "vae/a.safetensors", 3),))
    both = WeightLayerSpec((weight("m", "a", 3), weight("m", "b", 4)))
    assert (alone.name, both.name, both.model) == ("vae/a.safetensors", "m (2 files)", "m")
    assert (both.content_bytes, both.size) == (7, 10240)
    assert alone.layout.entries[0].path == "opt/models/vae/a.safetensors"
    assert str(alone.weights[0]) == (
        f"vae/a.safetensors from huggingface:a/b/vae/a.safetensors@{'c' * 40} sha256:{'0' * 64}"
    )


def test_the_shipped_image_set_is_seven_layers_or_fewer() -> None:
    """Every baked file of the shipped variant is big: each is a layer of its own, in declared order."""
    described = variant.load("baked")
    offers = [offer for offer in catalog.offered(described, catalog.load()) if offer.baked]
    from podkiln.lock import schema

    locked = {
        offer.id: tuple(schema.from_description(file) for file in offer.model.files)
        for offer in offers
        if all(file.sha256 != UNRESOLVED and file.size for file in offer.model.files)
    }
    weights = weight_layers.weights_of([offer for offer in offers if offer.id in locked], locked)
    assert weights
    assert [each.name for each in bundles(weights)] == [each.destination for each in weights]
    assert {each.origin["kind"] for each in weights} <= {"huggingface", "civitai", "https"}
