"""A custom node: one YAML file in variants/nodes/, or an entry under `nodes:` of a variant.

Everything that its own installer would find out by itself is data here: its packages, what it unpacks beside
them, where it keeps files. Nothing of a node is run before ComfyUI imports it.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator

from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.fields import (
    AptPackage,
    HttpsUrl,
    Identifier,
    Revision,
    SourceFolder,
    Text,
    VariableName,
    distinct,
)
from podkiln.config.node_names import folder_name, free_variable, part_name, variable_value
from podkiln.config.node_parts import (
    CodeLicence,
    Download,
    NodeCode,
    NodePython,
    Patch,
    SourcePath,
    Submodule,
)
from podkiln.config.repository_url import RepositoryUrl


class Node(StrictModel):
    """A custom node, pinned by commit, or one that lies in this repository."""

    title: Text | None = None
    source: SourceFolder | None = Field(
        None,
        description="A folder of this repository with its files, in the place of repo, commit and tree.",
    )
    repo: RepositoryUrl | None = Field(None, description="Its repository; needed without `source`.")
    commit: Revision | None = Field(None, description="Needed without `source`.")
    tree: Revision | None = Field(
        None, description="git's hash of its files; `./build.py lock` looks up one that is left out."
    )
    folder: Text | None = Field(
        None, description="Its folder below custom_nodes; by default the last part of `repo` or `source`."
    )
    licence: CodeLicence | None = None
    python: NodePython = NodePython()
    submodules: TupleOf[Submodule] = ()
    paths: TupleOf[SourcePath] = Field(
        (), description="Packages that have no wheel, as pinned trees on Python's path."
    )
    apt: Annotated[TupleOf[AptPackage], AfterValidator(distinct)] = Field(
        (), description="Debian packages that it calls, where the image lacks them."
    )
    patches: TupleOf[Patch] = ()
    code: TupleOf[NodeCode] = Field((), description="Repositories that it imports from a folder.")
    environment: dict[VariableName, Text] = Field(
        {},
        description="Variables, set where the node is loaded and the user has not set them. {workspace} in a "
        "value is the volume; a folder that a value begins with it names is made.",
    )
    models: Annotated[TupleOf[Identifier], AfterValidator(distinct)] = Field(
        (), description="Ids of models that need it."
    )
    downloads: TupleOf[Download] = Field((), description="What it fetches when it is first used.")
    installs: TupleOf[Text] = Field(
        (), description="What its installer would do, which is never run: for people to compare."
    )
    homepage: HttpsUrl | None = None
    notes: TupleOf[str] = ()

    @field_validator("folder")
    @classmethod
    def _folder_name(cls, folder: str | None) -> str | None:
        return folder if folder is None else folder_name(folder)

    @field_validator("environment")
    @classmethod
    def _free_variables(cls, environment: dict[str, str]) -> dict[str, str]:
        for name, value in environment.items():
            free_variable(name)
            try:
                variable_value(value)
            except ValueError as wrong:
                raise ValueError(f"{name}: {wrong}") from None
        return environment

    @model_validator(mode="after")
    def _of_one_origin(self) -> Node:
        """Refuse a node that comes from nowhere, or from two places."""
        if self.source is None:
            lacking = [key for key in ("repo", "commit") if getattr(self, key) is None]
            if lacking:
                raise ValueError(
                    f"the key {lacking[0]} is missing: a node has `repo` and `commit`, or else `source`, a "
                    "folder of this repository"
                )
            return self
        pinned = [key for key in ("repo", "commit", "tree", "submodules", "patches") if getattr(self, key)]
        if pinned:
            raise ValueError(f"`source` is a folder of this repository, which has no `{pinned[0]}`")
        if self.asks:
            raise ValueError("`source` lies in each image, so its licence cannot be one that asks")
        return self

    @model_validator(mode="after")
    def _apart(self) -> Node:
        """Refuse two things in one place."""
        folder_name(self.folder_name)  # that of the repository, where none is given
        if self.asks and self.paths:
            raise ValueError(
                "`paths` do not go with `bake: ask`: where the licence is not accepted, a pod fetches the "
                "node's own code, and nothing beside it"
            )
        for kind, names in (
            ("submodules", [each.path for each in self.submodules]),
            ("paths", [each.name for each in self.paths]),
            ("code", [each.variable for each in self.code]),
            ("patches", [each.file for each in self.patches]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"{kind} names one place twice")
        places = [PurePosixPath(each.path) for each in self.submodules]
        inner = next((one for one in places for other in places if other in one.parents), None)
        if inner:
            raise ValueError(f"the submodule {str(inner)!r} lies in another one")
        if len(parts := [*self.parts]) > len(set(parts)):
            raise ValueError("two of submodules, paths and code have one name at their end")
        of_code, of_venv = {each.variable for each in self.code}, {self.python.venv}
        for name, other in (("code", of_code), ("python.venv", of_venv - {None})):
            if twice := other & self.environment.keys():
                raise ValueError(f"{min(map(str, twice))} is set by environment and by {name}")
        if of_code & of_venv:
            raise ValueError(f"{self.python.venv} is set by code and by python.venv")
        return self

    @property
    def folder_name(self) -> str:
        """Its folder below custom_nodes."""
        return self.folder or str(self.source or self.repo).rsplit("/", 1)[-1]

    @property
    def parts(self) -> tuple[str, ...]:
        """What its submodules, paths and code are called in the names of their inputs."""
        modules = [part_name(each.path) for each in self.submodules]
        return (*modules, *(each.name for each in self.paths), *(each.name for each in self.code))

    @property
    def asks(self) -> bool:
        """Whether its licence has to be accepted before it lies in an image."""
        return self.licence is not None and self.licence.bake == "ask"
