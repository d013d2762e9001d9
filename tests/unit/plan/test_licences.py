"""Terms of baked weights: one line a model, and what a push asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plans import plan_of

from podkiln.plan.licences import LicenceTerms


def terms(name: str, *, accepted: bool = False, gated: bool = False) -> LicenceTerms:
    offer = next(each for each in plan_of("lazy").offered if each.id == name)
    model = offer.model.model_copy(update={"gated": gated})
    return LicenceTerms(replace(offer, entry=replace(offer.entry, model=model)), accepted)


@pytest.mark.parametrize(
    ("found", "says", "refused"),
    [
        (terms("sdxl-vae"), "MIT, commercial use allowed", False),
        (terms("sdxl-vae", gated=True), "MIT, commercial use allowed, gated: requires HF_TOKEN", False),
        (
            terms("storymem"),
            "CC-BY-NC-4.0, no commercial use, a push asks for --accept-licence storymem",
            True,
        ),
        (
            terms("svd-xt", accepted=True),
            "stability-community, commercial use unverified, accepted",
            False,
        ),
    ],
)
def test_terms_are_said_in_one_line(found: LicenceTerms, says: str, refused: bool) -> None:
    assert str(found) == says
    assert found.refused == refused


def test_scripts_see_licence_gating_and_consent() -> None:
    data = terms("svd-xt", accepted=True, gated=True).as_json()
    note = data.pop("note")
    assert "community licence of Stability AI" in note
    assert data == {
        "model": "svd-xt",
        "licence": "stability-community",
        "commercial": None,
        "gated": True,
        "bake": "ask",
        "accepted": True,
    }
