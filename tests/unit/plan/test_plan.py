"""A plan decides everything beforehand, and refuses what must not be built or pushed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from plans import plan_of

from podkiln.config import cuda_releases, variant
from podkiln.errors import PlanRefusedError
from podkiln.oci.spec import Digest
from podkiln.options import BuildRequest
from podkiln.plan import plan
from podkiln.plan.substitutes import Substitute
from podkiln.util.console import GB

if TYPE_CHECKING:
    from podkiln.plan.plan import Plan

ASKS = str(Path(__file__).parents[2] / "fixtures/variants/asks.yaml")
STRANGER = Substitute("comfyui", "/src", locked="1", actual="2")
PROMISED = (
    "schema",
    "variant",
    "layers",
    "total_bytes",
    "fetch_bytes",
    "upload_bytes",
    "container_disk_gb",
    "refusals",
)
SAME = Substitute("comfyui", "/src", locked="1", actual="1")


def made(name: str = "lazy", *inputs: Substitute, **options: Any) -> Plan:
    known = plan_of(name)
    return plan.make(known.described, known.lock, known.offered, inputs, BuildRequest.of([name], **options))


def refusals(found: Plan) -> str:
    return " ".join(map(str, found.refusals))


@pytest.mark.parametrize(
    ("inputs", "options", "refused"),
    [
        ([], {"push": True}, False),
        ([SAME], {"push": True}, False),
        ([STRANGER], {}, False),
        ([STRANGER], {"push": True}, True),
        ([STRANGER], {"push": True, "allow_substituted": True}, False),
    ],
)
def test_substitutes_are_pushed_only_on_demand(
    inputs: list[Substitute], options: dict[str, Any], refused: bool
) -> None:
    found = made("lazy", *inputs, **options)
    assert bool(found.refusals) == refused
    if refused:
        with pytest.raises(PlanRefusedError, match=r"^lazy: comfyui is not what the lock names"):
            found.require()
    else:
        found.require()


def test_the_substitutes_are_those_that_differ() -> None:
    assert made("lazy", SAME).substituted == ()
    assert made("lazy", STRANGER).substituted == (STRANGER,)


def test_weights_that_are_left_out_are_named() -> None:
    found = made("baked", no_weights=True)
    assert found.baked == ()
    assert found.weight_bytes == 0
    assert any(
        "leaves out sdxl-base, sdxl-vae" in note and "fetched at start" in note for note in found.notes
    )


def test_models_whose_needs_are_not_met_are_named() -> None:
    assert any("scail-wan2gp needs runtime:wan2gp" in note for note in made("lazy").notes)


def test_a_shipped_model_that_is_described_anew_is_named(tmp_path: Path) -> None:
    own = tmp_path / "studio.yaml"
    vae = (variant.SHIPPED / "models" / "sdxl-vae.yaml").read_text().replace("\n", "\n    ").rstrip()
    own.write_text(f"extends: lazy\ntitle: t\ndescription: d\ndefine:\n  sdxl-vae:\n    {vae}\n")
    (note,) = (note for note in plan_of(str(own)).notes if "shipped" in note)
    told = "sdxl-vae is what `define:` describes (studio.yaml:5), in place of the shipped model of that id."
    assert note == told
    assert not any("shipped" in note for note in plan_of("lazy").notes)


def test_the_disk_holds_the_runtime_the_defaults_and_room() -> None:
    lazy, consumer = made("lazy"), made("consumer")
    assert lazy.fetched_at_start == 0
    nodes = sum(each.about or 0 for each in lazy.layers if each.kind == "node packages")
    unpacked = cuda_releases.load("13.0").measured.unpacked + 4 * nodes
    assert lazy.container_disk_gb == -(-unpacked // GB) + plan.WORKING_GB
    more = consumer.container_disk_gb - lazy.container_disk_gb
    fewer = 4 * nodes - 4 * sum(each.about or 0 for each in consumer.layers if each.kind == "node packages")
    assert abs(more - (consumer.fetched_at_start - fewer) / GB) < 1
    assert consumer.fetched_at_start > 20 * GB


def test_what_is_left_out_is_fetched_at_start_if_it_is_on_by_default() -> None:
    baked = made("baked", no_weights=True)
    assert plan.make(baked.described, baked.lock, baked.offered).fetched_at_start == 0
    assert baked.fetched_at_start == sum(offer.model.size_bytes for offer in baked.offered)


@pytest.mark.parametrize("name", ["lazy", "baked"])
def test_scripts_find_what_they_rely_on(name: str) -> None:
    data = made(name).as_json()
    assert set(PROMISED) <= data.keys()
    assert data["schema"] == 2
    assert all({"what", "size", "digest"} <= layer.keys() for layer in data["layers"])


def test_the_runtime_lies_in_layers_by_rate_of_change() -> None:
    names = [layer.what for layer in made("lazy").layers]
    python = [f"Python: {layer.name}" for layer in made("lazy").described.spec.runtime.python.layers]
    assert names[:3] == ["base: debian:trixie-slim", "system packages", "Python environment"]
    nodes = names[names.index("ComfyUI 0.33.0") + 1 : -1]
    assert names[3:] == [*python, "JupyterLab", "ComfyUI 0.33.0", *nodes, "podkiln and start.sh"]
    assert nodes[:3] == [
        "packages of the node kjnodes",
        "custom node kjnodes",
        "packages of the node videohelpersuite",
    ]


def test_weight_layers_lie_below_the_runtime_in_declared_order() -> None:
    found = made("baked")
    what = [layer.what for layer in found.layers]
    assert what[0] == "sdxl-base: checkpoints/sd_xl_base_1.0.safetensors"
    assert what[5].startswith("juggernaut-xl-v9: ")
    assert what[6].startswith("base: ")
    assert found.refusals == ()


def test_what_is_to_be_fetched_is_what_no_bake_has_made_yet() -> None:
    found = plan_of("baked", no_weights=False)
    assert found.fetch_bytes == sum(offer.model.size_bytes for offer in found.baked)
    assert found.upload_bytes == found.weight_bytes
    first = found.bundles[0]
    known = {first.recipe: Digest("sha256:" + "1" * 64)}
    again = plan.make(found.described, found.lock, found.offered, known=known)
    assert again.layers[0].digest == known[first.recipe]
    assert again.fetch_bytes == found.fetch_bytes - first.content_bytes
    assert again.upload_bytes == found.upload_bytes - first.size
    assert again.as_json()["fetch_bytes"] == again.fetch_bytes


@pytest.mark.parametrize(
    ("how", "fetched", "sent"),
    [("existing", False, False), ("mounted", False, False), ("copied", False, True), (None, True, True)],
)
def test_what_the_registry_was_asked_decides(how: plan.ReuseKind | None, fetched: bool, sent: bool) -> None:
    """Of a layer that was made once, but is not where it is to be, all bytes move again."""
    found = plan_of("baked", no_weights=False)
    first, digest = found.bundles[0], Digest("sha256:" + "1" * 64)
    there = {digest: how} if how else {}
    made = replace(found, known={first.recipe: digest}, there=there).as_json()
    others = found.bundles[1:]
    assert [layer["reuse"] for layer in made["layers"]] == [how, *[None] * (len(made["layers"]) - 1)]
    assert made["fetch_bytes"] == sum(o.content_bytes for o in others) + fetched * first.content_bytes
    assert made["upload_bytes"] == sum(o.size for o in others) + sent * first.size


def test_an_unresolved_file_is_not_baked() -> None:
    found = plan_of("lazy")
    wan = next(offer for offer in found.offered if offer.id == "wan21-t2v-14b")
    refused = plan.make(found.described, found.lock, [replace(wan, baked=True)])
    assert "wan21-t2v-14b: diffusion_models/" in refused.refusals[0].what
    assert "no exact size" in refused.refusals[0].what
    assert refused.bundles == ()


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({}, False),
        ({"push": True}, True),
        ({"push": True, "accept_licence": ["svd-xt"]}, False),
        ({"push": True, "accept_licence": ["sdxl-base"]}, True),
        ({"push": True, "no_weights": True}, False),
    ],
)
def test_a_licence_that_asks_is_answered_before_a_push(options: dict[str, Any], refused: bool) -> None:
    assert ("--accept-licence svd-xt" in refusals(made(ASKS, **options))) == refused


def test_a_layer_that_the_registry_does_not_take_is_refused() -> None:
    assert made("baked", registry="ghcr.io/you").refusals == ()
    found = made("baked", registry="ghcr.io/you", rate=10_000_000)
    assert "ghcr.io ends uploads after 600 s" in found.refusals[0].what
    assert "Fetch it at start: " in found.refusals[0].instead[-1]
    assert made("baked", registry="localhost:5000/you", rate=10_000_000).refusals == ()


def test_models_of_the_variant_and_shipped_ones_are_ways_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: lazy\ntitle: t\ndescription: d\n"
        "models:\n  offer: [wan21-t2v-14b]\n  bake: [wan21-t2v-14b]\n"
        "define:\n  own:\n    title: t\n    summary: s\n    family: wan21-t2v\n"
        "    licence: {id: MIT, bake: 'yes'}\n    tiers: [consumer]\n    needs: {vram_gb: 8, ram_gb: 8}\n"
        f"    files: [{{url: 'https://example.com/a.sft', folder: vae, size: 1, sha256: {'a' * 64}}}]\n"
    )
    found = plan_of(str(path), no_weights=False, push=True, registry="ghcr.io/you").refusals[-1]
    assert "takes layers of at most 10.0 GB" in found.what
    assert [way.split(" in its place")[0] for way in found.instead[:2]] == ["Bake wan21-t2v-1.3b", "Bake own"]


def test_what_is_refused_says_what_to_do_instead() -> None:
    with pytest.raises(PlanRefusedError) as refused:
        made(ASKS, push=True).require()
    assert refused.value.hint == (
        "If you may redistribute it, add --accept-licence svd-xt. "
        "Fetch it at start: take svd-xt out of `bake:` (asks.yaml:7), or build with --no-weights."
    )
    (found,) = made(ASKS, push=True).as_json()["alternatives"]
    assert found["refusal"] == made(ASKS, push=True).as_json()["refusals"][0]
    assert " ".join(found["instead"]) == refused.value.hint


def test_the_biggest_file_is_named() -> None:
    data = made("baked").as_json()
    biggest = max((layer for layer in data["layers"] if layer["size"]), key=lambda layer: layer["size"])
    found = data["largest_file"]
    assert f"{found['model']}: {found['path']}" == biggest["what"]
    assert 0 < biggest["size"] - found["bytes"] < 20_000, "a layer is its file, padded, and a few headers"
    assert made("lazy").as_json()["largest_file"] is None


@pytest.mark.parametrize("name", ["lazy", "baked"])
def test_the_largest_layer_stands_beside_what_the_registry_takes(name: str) -> None:
    found = made(name, registry="ghcr.io/you", rate=10**7)
    largest = max([cuda_releases.load("13.0").measured.largest_layer, *(each.size for each in found.bundles)])
    registry = found.as_json()["registry"]
    assert registry["largest_layer_bytes"] == largest
    assert registry["most_layer_bytes"] == 10**10
    assert (registry["upload_seconds"], registry["most_upload_seconds"]) == (round(largest / 10**7), 600)
    assert made(name).as_json()["registry"] is None


def test_layers_are_counted() -> None:
    data = made("baked").as_json()
    assert data["layer_count"] == len(data["layers"])
    assert data["most_layers"] == plan.MAX_LAYERS


def test_the_terms_of_what_is_baked_are_shown() -> None:
    rows = made("baked").as_json()["licences"]
    assert [row["model"] for row in rows] == [offer.id for offer in made("baked").baked]
    (asks,) = made(ASKS, accept_licence=("svd-xt",)).as_json()["licences"]
    assert (asks["licence"], asks["bake"], asks["accepted"]) == ("stability-community", "ask", True)
    assert made("baked", no_weights=True).as_json()["licences"] == []


def test_what_is_declared_above_lies_above_the_runtime(tmp_path: Path) -> None:
    variant = tmp_path / "mine.yaml"
    variant.write_text(
        "extends: baked\ntitle: t\ndescription: d\n"
        "models:\n  offer: [sdxl-base, sdxl-vae]\n  default: []\n"
        "  bake: [sdxl-base, sdxl-vae]\n  above: [sdxl-base]\n"
    )
    found = plan_of(str(variant), no_weights=False)
    what = [layer.what for layer in found.layers]
    assert what[0].startswith("sdxl-vae")
    assert what[-1].startswith("sdxl-base")
    assert what[-2] == "podkiln and start.sh"
    assert [each.model for each in found.above] == ["sdxl-base"]
