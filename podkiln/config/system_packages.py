"""The Debian packages that the image itself needs, as variants/system/needed.yaml lists them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from podkiln.config import document, list_changes
from podkiln.config.document import ROOT, StrictModel, TupleOf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podkiln.config.variant import LoadedVariant

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


def check(described: LoadedVariant) -> None:
    """Raise DescriptionError for a list of packages that the image could not start with."""
    listed = described.spec.runtime.apt
    lacking = missing(listed)
    for each in described.lists[list_changes.APT].removed if lacking else ():
        what = next((one.purpose for one in lacking if one.name == each.value), None)
        if what:
            raise each.error(f"{each.value} cannot be taken out: the image needs it ({what}).")
    if lacking:
        named = ", ".join(f"{each.name} ({each.purpose})" for each in lacking)
        whole = ", ".join([*listed, *(each.name for each in lacking)])
        raise described.error(
            ("runtime", "apt"),
            f"a list replaces the parent's, and this one lacks what the image itself needs: {named}.",
            hint="`apt: {add: [...]}` installs more than the parent does. Or write the whole list: "
            f"[{whole}]",
        )
