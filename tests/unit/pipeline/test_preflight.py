"""What would end a build late is said before it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from plans import plan_of

from podkiln.errors import SourceError
from podkiln.options import BuildRequest
from podkiln.pipeline import preflight

if TYPE_CHECKING:
    from podkiln.oci.spec import Digest
    from podkiln.plan.plan import Plan, ReuseKind

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures/variants"
REQUEST = BuildRequest.of(("asks",))


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "CIVITAI_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def gated() -> Plan:
    """A variant that bakes a model of Hugging Face, which wants a licence accepted."""
    made = plan_of(str(FIXTURES / "asks.yaml"), no_weights=False)
    offered = [
        replace(each, entry=replace(each.entry, model=each.model.model_copy(update={"gated": True})))
        for each in made.offered
    ]
    return replace(made, offered=tuple(offered))


def check(made: Plan, there: dict[Digest, ReuseKind] | None = None) -> None:
    preflight.check([made], REQUEST, lambda made: replace(made, there=there or {}))


def test_a_gated_model_wants_a_token() -> None:
    with pytest.raises(SourceError, match=r"^svd-xt is gated: Hugging Face requires you to") as said:
        check(gated())
    assert said.value.hint
    assert said.value.hint.startswith("Accept it at https://huggingface.co/stabilityai/")
    assert said.value.hint.endswith(", and set HF_TOKEN.")


@pytest.mark.parametrize(("name", "value"), [("HF_TOKEN", "hf_x"), ("HF_ENDPOINT", "https://mirror.example")])
def test_with_a_token_or_a_mirror_it_is_tried(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    check(gated())


def test_what_is_there_already_wants_none() -> None:
    made = gated()
    digests = {bundle.recipe: bundle.recipe for bundle in made.bundles}  # any digest does
    check(replace(made, known=digests), dict.fromkeys(digests, "existing"))


@pytest.mark.parametrize(("name", "value"), [("HF_ENDPOINT", "mirror"), ("CIVITAI_TOKEN", "a b")])
def test_a_malformed_setting_is_said(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SourceError, match=name):
        check(plan_of(str(FIXTURES / "asks.yaml"), no_weights=False))
    check(plan_of())  # bakes nothing: no source is asked
