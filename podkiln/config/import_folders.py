"""Which packages of the index unpack into one folder, and which of them images have."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Final

from packaging.utils import canonicalize_name
from pydantic import AfterValidator, Field

from podkiln.config import document
from podkiln.config.document import ROOT, StrictModel, TupleOf
from podkiln.config.fields import PackageName, Text, distinct, requirement

if TYPE_CHECKING:
    from collections.abc import Collection

FILE: Final = ROOT / "variants" / "system" / "import-folders.yaml"


class ImportFolder(StrictModel):
    """A folder below site-packages, and the packages that own it."""

    folder: Text
    keep: PackageName = Field(description="The one that nodes get, whichever they ask for.")
    names: Annotated[TupleOf[PackageName], AfterValidator(distinct)] = Field(min_length=1)

    @property
    def owners(self) -> tuple[str, ...]:
        """All of them."""
        return (self.keep, *self.names)

    def owner(self, there: Collection[str]) -> str:
        """Return the one to have, above packages that are there: one of them stays."""
        return next((name for name in self.owners if name in there), self.keep)


class _ImportFolders(StrictModel):
    folders: TupleOf[ImportFolder]


@cache
def load() -> tuple[ImportFolder, ...]:
    """Return the folders. Raises DescriptionError."""
    return document.load(FILE).parse(_ImportFolders).folders


def of_package(name: str) -> ImportFolder | None:
    """Return the folder that a package unpacks into with others; None for all usual ones."""
    return next((each for each in load() if name in each.owners), None)


def kept(line: str, there: Collection[str]) -> str:
    """Return a requirement with the package that is kept in the place of one that owns the same folder."""
    wanted = requirement(line)
    folder = of_package(canonicalize_name(wanted.name))
    if folder is None or (owner := folder.owner(there)) == canonicalize_name(wanted.name):
        return line
    return f"{owner}{wanted.specifier}"


def contested(names: Collection[str]) -> tuple[ImportFolder, list[str]] | None:
    """Return the first folder that more than one of some packages own, and which those are."""
    for each in load():
        found = [name for name in each.owners if name in names]
        if len(found) > 1:
            return each, found
    return None
