"""Which models a variant offers, switches on and bakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from descriptions import FILE, SHA, VARIANT, model, variant, write

from podkiln.config import catalog
from podkiln.config import variant as variants
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.catalog import Entry, VariantModel


@pytest.fixture(scope="module")
def shipped() -> dict[str, Entry]:
    return catalog.load()


def offered(folder: Path, text: str, shipped: dict[str, Entry]) -> tuple[VariantModel, ...]:
    return catalog.offered(variants.load(str(write(folder / "mine.yaml", text))), shipped)


def ids(offers: tuple[VariantModel, ...]) -> list[str]:
    return [offer.id for offer in offers]


@pytest.mark.parametrize("name", variants.names())
def test_what_a_shipped_variant_offers_is_there(name: str, shipped: dict[str, Entry]) -> None:
    described = variants.load(name)
    assert bool(catalog.offered(described, shipped)) is described.spec.has_comfyui


def test_a_list_is_offered_in_its_own_order(tmp_path: Path, shipped: dict[str, Entry]) -> None:
    """The order of the layers: new ones are appended, so that lower ones stay what they are."""
    text = VARIANT.replace("[sdxl-base]", "[sdxl-vae, sdxl-base], default: [sdxl-base], bake: [sdxl-vae]")
    offers = offered(tmp_path, text, shipped)
    assert [(offer.id, offer.default, offer.baked) for offer in offers] == [
        ("sdxl-vae", False, True),
        ("sdxl-base", True, False),
    ]


def test_all_is_every_model_there_is(tmp_path: Path, shipped: dict[str, Entry]) -> None:
    assert ids(offered(tmp_path, VARIANT.replace("[sdxl-base]", "all"), shipped)) == list(shipped)


def test_tier_is_every_model_of_the_variants_tier(tmp_path: Path, shipped: dict[str, Entry]) -> None:
    found = ids(offered(tmp_path, VARIANT.replace("[sdxl-base]", "tier"), shipped))
    assert found == [name for name, entry in shipped.items() if "consumer" in entry.model.tiers]
    assert 0 < len(found) < len(shipped)


@pytest.mark.parametrize("offer", ["all", "tier", "[sdxl-base]", "[mine, sdxl-base]"])
def test_a_model_of_ones_own_is_offered_without_being_listed(
    offer: str, tmp_path: Path, shipped: dict[str, Entry]
) -> None:
    text = variant(mine=model().replace("[consumer]", "[datacenter]")).replace("[sdxl-base]", offer)
    assert ids(offered(tmp_path, text, shipped)).count("mine") == 1


def test_a_model_of_ones_own_replaces_the_shipped_one_of_its_name(
    tmp_path: Path, shipped: dict[str, Entry]
) -> None:
    (found,) = offered(tmp_path, variant(**{"sdxl-base": model()}), shipped)
    assert found.model.title == "A model"


def test_an_own_model_is_blamed_where_it_is_described(tmp_path: Path, shipped: dict[str, Entry]) -> None:
    write(tmp_path / "up.yaml", variant(mine=model(more="env: ENABLE_SDXL_BASE\n")))
    with pytest.raises(DescriptionError, match=r"up.yaml:18: define.mine.env: ENABLE_SDXL_BASE already"):
        offered(tmp_path, "extends: up.yaml\n", shipped)


def test_what_is_required_and_not_there_is_unmet(tmp_path: Path, shipped: dict[str, Entry]) -> None:
    more = "requires: [node:here, node:gone, model:sdxl-base, model:sdxl-vae]\n"
    nodes = f"nodes:\n  here: {{repo: https://github.com/a/b, commit: {'0' * 40}}}\n"
    offers = offered(tmp_path, variant(nodes, mine=model(more=more)), shipped)
    assert offers[-1].unmet == ("node:gone", "model:sdxl-vae")


def test_one_file_may_serve_two_models(tmp_path: Path, shipped: dict[str, Entry]) -> None:
    """As text encoders and VAEs do."""
    text = variant(one=model(), two=model(FILE + "  note: shared\n"))
    assert ids(offered(tmp_path, text, shipped)) == ["sdxl-base", "one", "two"]


@pytest.mark.parametrize(
    "second",
    [
        FILE.replace("unresolved", SHA),
        FILE.replace("org/repo", "org/fork"),
        FILE + f"  revision: {'0' * 40}\n",
        f"- {{local: model.safetensors, folder: checkpoints, sha256: {SHA}}}\n",
    ],
)
def test_two_different_files_cannot_have_one_place(
    second: str, tmp_path: Path, shipped: dict[str, Entry]
) -> None:
    with pytest.raises(DescriptionError, match="is also a file of 'one', with another source or sha256"):
        offered(tmp_path, variant(one=model(), two=model(second)), shipped)


def test_variables_made_from_ids_are_compared_too(tmp_path: Path, shipped: dict[str, Entry]) -> None:
    other = model(FILE.replace("checkpoints", "vae"))
    with pytest.raises(DescriptionError, match="ENABLE_A_B already switches 'a-b' on"):
        offered(tmp_path, variant(**{"a-b": model(), "a.b": other}), shipped)


@pytest.mark.parametrize("name", ["My Model", "Übermodell", "a" * 65, "-a"])
def test_the_name_of_a_models_file_is_its_id(name: str, tmp_path: Path) -> None:
    write(tmp_path / f"{name}.yaml", model())
    with pytest.raises(DescriptionError, match="the file's name is the model's id"):
        catalog.load(tmp_path)


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ("bake: [sdxl-vae], above: [sdxl-base]", "'sdxl-base' is not among those that are baked"),
        ("bake: [sdxl-vae], above: [nobody]", "'nobody' is not among the models that this variant offers"),
        ("bake: [sdxl-vae], above: [sdxl-vae, sdxl-vae]", "'sdxl-vae' is duplicated"),
    ],
)
def test_only_what_is_baked_can_lie_above(
    lists: str, said: str, tmp_path: Path, shipped: dict[str, Entry]
) -> None:
    text = VARIANT.replace("[sdxl-base]", f"[sdxl-vae, sdxl-base], {lists}")
    with pytest.raises(DescriptionError, match=said):
        offered(tmp_path, text, shipped)
