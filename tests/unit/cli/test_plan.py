"""What `plan` shows: all that a person decides by, in lines; all of it for scripts, too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from plans import plan_of

from podkiln.cli import main, plan
from podkiln.pipeline import planning
from podkiln.plan import registry_limits

if TYPE_CHECKING:
    from podkiln.plan.plan import Plan

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures/variants"
NEVER = "localhost:1/nobody"  # a registry of which nothing is known, and that is not asked: nothing was baked


def shown(made: Plan, capsys: pytest.CaptureFixture[str]) -> str:
    plan.show(made)
    return capsys.readouterr().out


def of(*line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["plan", *line])
    return code, capsys.readouterr().out


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask no registry what is there: these are plans for ones that cannot be reached."""
    monkeypatch.setattr(planning, "with_registry_state", lambda made, _: made)


@pytest.mark.usefixtures("unasked")
def test_a_plan_for_a_registry_says_all_that_a_person_decides_by(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = of("--variant", "baked", "--registry", "ghcr.io/you", capsys=capsys)
    lines = [line.strip() for line in out.splitlines()]
    assert code == 0
    for line in (
        "30 of at most 120 layers",
        "biggest file: pony-realism-v21: checkpoints/ponyRealism_v21MainVAE.safetensors (7.1 GB)",
        "sdxl-vae          MIT, commercial use allowed",
        "ghcr.io: the largest layer has 7.1 GB of at most 10.0 GB, 178 s of at most 600 s at 40 MB/s",
        "container disk of a pod without a volume: 54 GB",
    ):
        assert line in lines
    assert any(line.startswith("a free GitHub runner is enough: 25 GB of disk (14 GB are") for line in lines)


@pytest.mark.usefixtures("unasked")
def test_the_rate_decides_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = of("--variant", "baked", "--registry", "ghcr.io/you", "--rate", "10", capsys=capsys)
    assert code == 5
    assert "of at most 600 s at 10 MB/s" in out
    refused, *instead = out[out.index("refused: sdxl-base") :].splitlines()
    assert refused.endswith("ghcr.io ends uploads after 600 s (" + source("ghcr.io") + ").")
    assert instead[0].startswith("    Push to Amazon ECR (layers up to 54.5 GB), Quay ")
    assert instead[1] == (
        "    Fetch it at start: take sdxl-base out of `bake:` (baked.yaml:12), or build with --no-weights."
    )


def source(host: str) -> str:
    known = registry_limits.find_limits(host)
    assert known
    return known.source


@pytest.mark.usefixtures("unasked")
def test_a_spool_is_reckoned_with(capsys: pytest.CaptureFixture[str]) -> None:
    _, plain = of("--variant", "baked", "--registry", NEVER, "--json", capsys=capsys)
    _, spooled = of("--variant", "baked", "--registry", NEVER, "--json", "--spool", "/x", capsys=capsys)
    (before,), (after,) = json.loads(plain)["runners"], json.loads(spooled)["runners"]
    assert (before["suffices"], after["suffices"]) == (True, False)
    assert after["disk_bytes"] - before["disk_bytes"] > 21 * 10**9


def test_what_is_there_already_stands_at_its_layer(capsys: pytest.CaptureFixture[str]) -> None:
    found = plan_of("baked", no_weights=False)
    kinds: list[Any] = ["existing", "mounted", "copied"]
    digests: list[Any] = [f"sha256:{number:064x}" for number in range(3)]
    known = {each.recipe: digest for each, digest in zip(found.bundles, digests, strict=False)}
    there = dict(zip(digests, kinds, strict=True))
    lines = shown(replace(found, known=known, there=there), capsys).splitlines()
    assert [line.rpartition(", ")[2] for line in lines[2:5]] == ["there already)", "mounted)", "copied)"]
    assert lines[5].endswith("(7.1 GB)")


def test_ways_out_that_several_refusals_share_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    found = plan_of(str(FIXTURES / "asks.yaml"), no_weights=False, push=True, registry=NEVER)
    (refusal,) = found.refusals
    out = shown(replace(found, refusals=(refusal, replace(refusal, what="Another."))), capsys)
    assert out.endswith(f"  refused: Another.\n    {refusal.instead[0]}\n    {refusal.instead[1]}\n")
    assert out.count(refusal.instead[0]) == 1


def test_nothing_is_said_of_weights_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(plan_of("lazy", nodes=False), capsys)  # nodes have licences too
    assert "weights baked: 0 B" in out
    assert not any(word in out for word in ("biggest file", "licence", "commercial", "the largest layer"))
