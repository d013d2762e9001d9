"""What a build leaves out of the packages that it installs: variants/system/strip.yaml, with reasons."""

from __future__ import annotations

import fnmatch
from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, model_validator

from podkiln.config import document
from podkiln.config.document import ROOT, StrictModel, TupleOf
from podkiln.config.fields import AptPackage, Identifier, PackageGlob, Text, distinct
from podkiln.config.messages import PatternType

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from podkiln.config.runtime import Runtime

FILE = ROOT / "variants" / "system" / "strip.yaml"
FilePattern = Annotated[
    str, PatternType(r"^[A-Za-z0-9*/._+-]+$", "a path of letters, digits and / . _ + -, maybe with *")
]
Patterns = Annotated[TupleOf[FilePattern], AfterValidator(distinct)]


class Row(StrictModel):
    """Files of packages, and why no pod misses them."""

    name: Identifier
    packages: TupleOf[PackageGlob] = Field(min_length=1, description="Names or globs.")
    files: Patterns = Field(
        min_length=1,
        description="Paths below site-packages (of Debian packages, absolute ones), where * matches / too.",
    )
    why: Text = Field(description="What shows that it is harmless, or why it may not be.")
    on: bool = Field(True, description="false: listed only, until it is known to be harmless.")
    needs: Text | None = Field(None, description="What has to be seen before a row that is off goes on.")

    @model_validator(mode="after")
    def _off_says_what_it_waits_for(self) -> Row:
        if self.on == (self.needs is not None):
            raise ValueError(f"{self.name}: `needs` belongs to a row with `on: false`, and to no other")
        return self


class DebianRow(Row):
    """Files of Debian packages. Each pattern matches a file of one of them, and each of them has a match."""

    packages: TupleOf[AptPackage] = Field(min_length=1)
    suite: Identifier = Field(description="The Debian suite whose packages these are.")
    brought_by: AptPackage = Field(description="The package of `runtime.apt` that depends on them.")
    unless: TupleOf[AptPackage] = Field((), description="They stay where `runtime.apt` has one of these.")


class StripList(StrictModel):
    """strip.yaml."""

    python: TupleOf[Row]
    debian: TupleOf[DebianRow]
    media: TupleOf[Row] = Field(description="Emptied, not removed, in variants with `runtime.media: false`.")

    @model_validator(mode="after")
    def _distinct_names(self) -> StripList:
        distinct(tuple(row.name for row in (*self.python, *self.debian, *self.media)))
        return self


@cache
def load() -> StripList:
    """Load the list. Raises DescriptionError."""
    return document.load(FILE).parse(StripList)


def of_layer(runtime: Runtime, packages: Iterable[str]) -> str:
    """Return the rules for a Python layer, as strip_files.py reads them; empty where none applies.

    Args:
        runtime: The variant's.
        packages: Canonical names of what the layer installs.
    """
    names = sorted(packages)
    rows = [(row, "remove") for row in load().python if runtime.strip]
    rows += [(row, "empty") for row in load().media if not runtime.media]
    return "".join(_rules(row, verb, _matching(row.packages, names)) for row, verb in rows if row.on)


def of_system(runtime: Runtime) -> str:
    """Return the rules for the Debian packages; empty where none applies."""
    if not runtime.strip:
        return ""
    rows = [row for row in load().debian if row.on and row.suite == runtime.base.suite]
    return "".join(_rules(row, "remove", [",".join(row.packages)]) for row in rows if _applies(row, runtime))


def _applies(row: DebianRow, runtime: Runtime) -> bool:
    return row.brought_by in runtime.apt and not {*row.unless} & {*runtime.apt}


def restored(runtime: Runtime, added: Collection[str]) -> tuple[str, ...]:
    """Return the Debian packages of which the shared layer lacks files that what is added may use."""
    if not runtime.strip:
        return ()
    rows = [row for row in load().debian if row.on and row.suite == runtime.base.suite]
    return tuple(
        sorted(
            name
            for row in rows
            if row.brought_by in runtime.apt
            and {*row.unless} & {*added}
            and not {*row.unless} & {*runtime.apt}
            for name in row.packages
        )
    )


def _matching(globs: Sequence[str], names: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatchcase(name, each) for each in globs)]


def _rules(row: Row, verb: str, packages: Sequence[str]) -> str:
    if not packages:
        return ""
    lines = [f"{verb} {package} {pattern}" for package in packages for pattern in row.files]
    return "\n".join([f"# {row.name}: {' '.join(row.why.split())}.", *lines, ""])
