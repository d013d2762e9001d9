"""What a custom node consists of, each with its pins: packages, submodules, patches, code of others."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import AfterValidator, Field, field_validator, model_validator

from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.fields import (
    Identifier,
    PythonRequirement,
    Revision,
    SafePath,
    SourceFolder,
    Text,
    VariableName,
    distinct,
)
from podkiln.config.messages import PatternType
from podkiln.config.node_names import place_variable
from podkiln.config.repository_url import RepositoryUrl
from podkiln.util.quoting import shown

FileSha256 = Annotated[str, PatternType(r"^[0-9a-f]{64}$", "a sha256 of 64 lower-case hex digits")]
HostName = Annotated[
    str, PatternType(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9-]+)+$", "a host such as huggingface.co")
]


class CodeLicence(StrictModel):
    """What the code may be used for."""

    id: Text | None = Field(description="SPDX identifier or upstream's own name; null: the tree has none.")
    note: str | None = None
    commercial: bool | None = Field(None, description="null: unverified.")
    bake: Literal["yes", "ask"] = Field(
        "yes",
        description="ask: lies in no image unless the build has --accept-licence; so without a licence, or "
        "for non-commercial use.",
    )

    @model_validator(mode="after")
    def _honest(self) -> CodeLicence:
        why = "without a licence" if self.id is None else "not for commercial use"
        if self.bake == "yes" and (self.id is None or self.commercial is False):
            raise ValueError(f"code {why} is not handed on in images: write `bake: ask`")
        return self


class Dropped(StrictModel):
    """A line of upstream's requirements that is left out."""

    line: Text
    why: Text


class Replaced(StrictModel):
    """A line of upstream's requirements in whose place another one is installed."""

    line: Text
    by: PythonRequirement
    why: Text


class NodePython(StrictModel):
    """What a node needs of the package index, against what its upstream asks for."""

    install: TupleOf[PythonRequirement] = Field((), description="What is installed, a requirement a line.")
    replaced: TupleOf[Replaced] = Field((), description="Lines that are installed otherwise, and why.")
    dropped: TupleOf[Dropped] = Field((), description="Lines that are not installed, and why.")
    venv: VariableName | None = Field(
        None,
        description="They lie in a virtual environment of their own, for a process of the node's. ComfyUI "
        "does not see it; it sees the image's packages behind its own. The variable that names its Python.",
    )

    @field_validator("venv")
    @classmethod
    def _free_variable(cls, venv: str | None) -> str | None:
        return venv if venv is None else place_variable(venv)

    @model_validator(mode="after")
    def _once(self) -> NodePython:
        """Refuse a package that is installed twice, or installed and dropped."""
        seen: dict[str, str] = {}
        for line in self.lines:
            name = canonicalize_name(Requirement(line).name)
            if name in seen:
                raise ValueError(f"{shown(line)} and {shown(seen[name])} are one package")
            seen[name] = line
        for each in self.dropped:
            found = re.match(r"[A-Za-z0-9][\w.-]*", each.line)
            if found and (name := canonicalize_name(found[0])) in seen:
                raise ValueError(f"{shown(each.line)} is dropped, and {shown(seen[name])} is installed")
        return self

    @property
    def lines(self) -> tuple[str, ...]:
        """All that is installed."""
        return (*self.install, *(each.by for each in self.replaced))


class Submodule(StrictModel):
    """A repository that lies in a folder of the node's own, as its .gitmodules says."""

    path: SourceFolder
    repo: RepositoryUrl
    commit: Revision
    tree: Revision


class SourcePath(StrictModel):
    """A Python package that is on no index, or there as source alone: its tree, on Python's path."""

    name: Identifier
    repo: RepositoryUrl
    commit: Revision
    tree: Revision
    folder: SourceFolder | None = Field(
        None, description="The folder in it that goes on the path; by default the whole tree."
    )
    licence: Text


class Patch(StrictModel):
    """A change of upstream's files: a unified diff, applied without fuzz."""

    file: SafePath = Field(description="Relative to the YAML file.")
    sha256: FileSha256
    why: Text


class NodeCode(StrictModel):
    """Code of others that a node imports from a folder: such as a model's own, where the node is ours."""

    name: Identifier
    repo: RepositoryUrl
    commit: Revision
    tree: Revision
    variable: VariableName = Field(description="The variable in which the node finds the folder.")
    licence: CodeLicence
    patches: TupleOf[Patch] = ()

    @field_validator("variable")
    @classmethod
    def _free_variable(cls, variable: str) -> str:
        return place_variable(variable)

    @property
    def asks(self) -> bool:
        """Whether its licence has to be accepted before it lies in an image."""
        return self.licence.bake == "ask"


class Download(StrictModel):
    """What the node fetches by itself when it is used: nothing says which bytes come."""

    what: Text
    hosts: Annotated[TupleOf[HostName], AfterValidator(distinct)] = Field(min_length=1)
