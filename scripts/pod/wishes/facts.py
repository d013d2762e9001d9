"""What an image knows of kinds of models and of CivitAI's terms: model-types.json, from variants/flags/."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pod.failure import DATA_UNREADABLE, PodError
from pod.wishes import listing
from pod.wishes.civitai import Terms
from pod.wishes.kind import Types

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "model-types.json"


@dataclass(frozen=True)
class Facts:
    """The kinds of models, and what CivitAI's signals mean."""

    types: Types
    terms: Terms

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Facts:
        """Raises KeyError, TypeError, AttributeError."""
        return cls(Types(data), Terms.from_json(data["civitai"]))


def load(root: Path) -> Facts:
    """Read model-types.json, which lies below `root` in the image. Raises PodError."""
    data = listing.load_json(root / NAME, "rebuild the image")
    try:
        return Facts.from_json(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise PodError(f"{root / NAME} is damaged ({error!r}): rebuild the image.", DATA_UNREADABLE) from None
