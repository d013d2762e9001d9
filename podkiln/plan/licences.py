"""The terms that baked weights come under: licence, gating, and whether the user answers for a push. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podkiln.config.catalog import VariantModel

_COMMERCIAL = {True: "commercial use allowed", False: "no commercial use", None: "commercial use unverified"}


@dataclass(frozen=True)
class LicenceTerms:
    """Those of one model. `accepted`: named with --accept-licence."""

    offer: VariantModel
    accepted: bool

    @property
    def refused(self) -> bool:
        """Whether a push has to be refused: the licence does not plainly allow handing the weights on."""
        return self.offer.model.licence.bake == "ask" and not self.accepted

    def __str__(self) -> str:
        model = self.offer.model
        asks = "accepted" if self.accepted else f"a push asks for --accept-licence {self.offer.id}"
        parts = [
            model.licence.id,
            _COMMERCIAL[model.licence.commercial],
            *(["gated: requires HF_TOKEN"] if model.gated else []),
            *([asks] if model.licence.bake == "ask" else []),
        ]
        return ", ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return them for scripts."""
        licence = self.offer.model.licence
        return {
            "model": self.offer.id,
            "licence": licence.id,
            "note": licence.note,
            "commercial": licence.commercial,
            "gated": self.offer.model.gated,
            "bake": licence.bake,
            "accepted": self.accepted,
        }
