"""What a variant has besides the layers that all variants of its runtime share.

Debian packages (`runtime.apt: {add: [...]}`), those of the extras in variants/system/extras.yaml
(`runtime.extras`) and of custom nodes, and Python packages (`runtime.python.add`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, Field

from podkiln.config import document, list_changes, nodes
from podkiln.config.document import ROOT, StrictModel, TupleOf
from podkiln.config.fields import AptPackage, Identifier, Text, distinct
from podkiln.util.quoting import did_you_mean, shown

if TYPE_CHECKING:
    from podkiln.config.list_changes import Item
    from podkiln.config.variant import LoadedVariant

FILE: Final = ROOT / "variants" / "system" / "extras.yaml"
LAYER: Final = "additions"
"""What their Python layer is called."""
_KEY: Final = ("runtime", "extras")


class Extra(StrictModel):
    """Packages for one purpose, which most images do without."""

    name: Identifier
    why: Text
    apt: Annotated[TupleOf[AptPackage], AfterValidator(distinct)] = Field(min_length=1)


class _Extras(StrictModel):
    extras: TupleOf[Extra]


@dataclass(frozen=True)
class Additions:
    """What is added: entries of the description, and extras."""

    apt: tuple[Item, ...] = ()
    python: tuple[Item, ...] = ()
    extras: tuple[Extra, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        """All Debian packages that are asked for, in alphabetical order."""
        of_extras = {name for each in self.extras for name in each.apt}
        return tuple(sorted(of_extras | {each.value for each in self.apt}))

    @property
    def requirements(self) -> tuple[str, ...]:
        """The Python requirements, as they are written."""
        return tuple(each.value for each in self.python)

    def named(self) -> str:
        """Return the Debian packages for people: those asked for by name, then the extras."""
        return ", ".join([*(each.value for each in self.apt), *(each.name for each in self.extras)])

    def item(self, package: str) -> Item | None:
        """Return where a Debian package is asked for by its name; None: an extra brings it."""
        return next((each for each in self.apt if each.value == package), None)


@cache
def load() -> dict[str, Extra]:
    """Return the extras by name. Raises DescriptionError."""
    return {each.name: each for each in document.load(FILE).parse(_Extras).extras}


def of(described: LoadedVariant) -> Additions:
    """Return what a variant adds."""
    if not described.lists:
        return Additions()
    return Additions(
        apt=(*described.lists[list_changes.APT].added, *nodes.apt_items(described)),
        python=described.lists[list_changes.PYTHON].items,
        extras=tuple(load()[name] for name in described.spec.runtime.extras),
    )


def check(described: LoadedVariant) -> None:
    """Raise DescriptionError for an extra that there is not, or whose packages are asked for as well."""
    for number, name in enumerate(described.spec.runtime.extras):
        if name not in load():
            meant = did_you_mean(name, load())
            hint = f"There are: {', '.join(load())}."
            what = f"there is no extra {shown(name)}. {meant}".rstrip()
            raise described.error((*_KEY, number), what, hint=hint)
    for each in described.additions.apt:
        brought = next((one.name for one in described.additions.extras if each.value in one.apt), None)
        if brought:
            raise each.error(f"{each.value} is there already: `extras: [{brought}]` brings it.")
