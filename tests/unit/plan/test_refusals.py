"""Refusals: each says in one sentence what is wrong, and names ways out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from plans import plan_of

from podkiln.plan import refusals
from podkiln.plan.refusals import MAX_LAYERS, Refusal
from podkiln.plan.substitutes import Substitute

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.plan.plan import Plan

WAN = "diffusion_models/wan2.1_t2v_14B_fp8_e4m3fn.safetensors"
RATE = 40_000_000


@pytest.fixture
def wan(tmp_path: Path) -> Plan:
    """Bake Wan: one file of 14.3 GB, by an approximate size, and two smaller ones."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: lazy\ntitle: t\ndescription: d\n"
        "models:\n  offer: [wan21-t2v-14b, wan21-t2v-1.3b]\n"
        "  bake:\n    - wan21-t2v-1.3b\n    - wan21-t2v-14b\n"
    )
    return plan_of(str(path), no_weights=False)


def sizes(found: Plan, host: str, **other: Any) -> list[Refusal]:
    rate = other.get("rate", RATE)
    return list(refusals.of_sizes(host, rate, found.baked, found.lock.weights, found.described, {}))


def test_a_refusal_is_one_text_for_those_who_want_it_whole() -> None:
    assert str(Refusal("No.", ("Do this.", "Or that."))) == "No. Do this. Or that."
    assert str(Refusal("No.")) == "No."


def test_files_that_nobody_vouched_for_are_refused_one_by_one(wan: Plan) -> None:
    found = refusals.of_unresolved(wan.baked, wan.lock.weights, wan.described)
    large = [each for each in found if each.what.startswith("wan21-t2v-14b: ")]
    assert len(large) == 3
    assert large[0].what.startswith(f"wan21-t2v-14b: {WAN} has no exact size, so it")
    assert re.fullmatch(
        r"Resolve it with `\./build\.py lock --variant \S+/mine\.yaml`\.", large[0].instead[0]
    )
    assert "take wan21-t2v-14b out of `bake:` (mine.yaml:8)" in large[0].instead[1]


def test_sizes_are_judged_before_hashes_are_known(wan: Plan) -> None:
    (found,) = sizes(wan, "ghcr.io")
    assert found.what.startswith(
        f"wan21-t2v-14b: {WAN} is 14.3 GB, and ghcr.io takes layers of at most 10.0 GB"
    )
    assert sizes(wan, "quay.io") == []
    assert sizes(wan, "localhost:5000") == []


def test_a_file_that_two_models_share_is_refused_once(wan: Plan) -> None:
    found = [each.what for each in sizes(wan, "ghcr.io", rate=10_000_000)]
    assert len([what for what in found if "umt5_xxl" in what]) == 1
    assert any(what.startswith("wan21-t2v-1.3b: text_encoders/umt5_xxl") for what in found)  # baked first


def test_headers_count_too(tmp_path: Path) -> None:
    """A file of exactly the limit makes a layer that is larger."""
    path = tmp_path / "edge.yaml"
    path.write_text(
        "extends: lazy\ntitle: t\ndescription: d\nmodels:\n  offer: [edge]\n  bake: [edge]\n"
        "define:\n  edge:\n    title: t\n    summary: s\n    licence: {id: MIT, bake: 'yes'}\n"
        "    tiers: [consumer]\n    needs: {vram_gb: 8, ram_gb: 8}\n    files:\n"
        "      - {url: 'https://example.com/a.safetensors', folder: vae, size: 10000000000,"
        f" sha256: {'a' * 64}}}\n"
    )
    assert [each.what[:36] for each in sizes(plan_of(str(path), no_weights=False), "ghcr.io")] == [
        "edge: vae/a.safetensors is 10.0 GB, "
    ]


@pytest.mark.parametrize(("count", "refused"), [(MAX_LAYERS, False), (MAX_LAYERS + 1, True)])
def test_layers_are_counted(count: int, refused: bool) -> None:
    assert [each.what[:10] for each in refusals.of_count(count)] == ["121 layers"] * refused


def test_substitutes_are_named_together() -> None:
    same, one, two = (
        Substitute("base", "x", locked="1", actual="1"),
        Substitute("comfyui", "/a", locked="1", actual="2"),
        Substitute("requirements", "/b", locked="1", actual="2"),
    )
    assert refusals.of_substitutes([same]) == []
    (found,) = refusals.of_substitutes([same, one, two])
    assert found.what == "comfyui, requirements is not what the lock names."
    assert "--allow-substituted" in found.instead[0]
