"""The Debian packages that the image itself needs, as variants/system/needed.yaml lists them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from podkiln.config import document
from podkiln.config.document import ROOT, StrictModel, TupleOf

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE = ROOT / "variants" / "system" / "needed.yaml"


class Package(StrictModel):
    """One package, what it is for, and packages that serve in its place."""

    name: str
    purpose: str
    instead: TupleOf[str] = ()


class Needed(StrictModel):
    """needed.yaml."""

    packages: TupleOf[Package]


@cache
def load() -> tuple[Package, ...]:
    """Load the list. Raises DescriptionError."""
    return document.load(FILE).parse(Needed).packages


def missing(listed: Sequence[str]) -> list[Package]:
    """Return the needed packages that a list lacks."""
    return [each for each in load() if not {each.name, *each.instead} & set(listed)]
