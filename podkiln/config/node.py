"""A custom node: one YAML file in variants/nodes/, or an entry under `nodes:` of a variant.

Everything that its own installer would find out by itself is data here: its packages, what it unpacks beside
them, where it keeps files. Nothing of a node is run before ComfyUI imports it.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import AfterValidator, Field, field_validator, model_validator

from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.fields import (
    AptPackage,
    HttpsUrl,
    Identifier,
    PythonRequirement,
    Revision,
    SafePath,
    Text,
    VariableName,
    distinct,
)
from podkiln.config.messages import PatternType
from podkiln.util.quoting import shown

WORKSPACE: Final = "{workspace}"
"""What stands for the volume in a value of `environment`."""
_EXAMPLES: Final = "podkiln"
"""The folder of the image's examples: a whitelist of ComfyUI's has names alone, so one name is one node."""
_FOLDER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OF_COMFYUI: Final = {"websocket_image_save.py", "example_node.py.example", "__pycache__"}
"""What ComfyUI's own tree has in custom_nodes, or makes there."""
# Of the image itself, and of who starts a pod: docs/reference/environment.md.
_TAKEN_VARIABLES: Final = re.compile(
    r"PATH|HOME|USER|LOGNAME|PWD|LANG|LC_\w*|SHELL|TERM|TMPDIR|ENV|BASH_ENV|LD_\w*|PYTHON\w*|SOURCE_DATE_EPOCH|"
    r"WORKSPACE|MODELS|LORAS|NODES|NODE_REQUIREMENTS|FLAG_PROFILE|ENABLE_\w*|COMFYUI_\w*|FETCH_\w*|"
    r"NVIDIA_\w*|GPU_\w*|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|PIP_CONSTRAINT|UV_CONSTRAINT|"
    r"HF_TOKEN|HF_ENDPOINT|HUGGING_FACE_HUB_TOKEN|CIVITAI_\w*|GITHUB_ENDPOINT|(?i:(HTTPS?|ALL|NO)_PROXY)|"
    r"PODKILN_\w*|WEB_\w*|PORT|PORT_HEALTH|HEALTH_CHECK_PATH|PUBLIC_KEY|SSH_\w*|JUPYTER_\w*|RUNPOD_\w*|VAST_\w*"
)
_OF_THE_POD: Final = re.compile(
    r"PODKILN_(AGAIN|BAKED|CGROUP_ROOT|DEBUG|DOCTOR|FETCH_\w*|LOCAL|MEMINFO|NODES_SEEN|NVIDIA_SMI_TIMEOUT|OVERLAY|"
    r"ROOT|RUN|STARTED_BY|STARTS|VENV|VOLUME\w*)"
)
"""What scripts/pod reads or sets; in other names that begin so, nodes find the code of others."""

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

    path: SafePath
    repo: HttpsUrl
    commit: Revision
    tree: Revision


class SourcePath(StrictModel):
    """A Python package that is on no index, or there as source alone: its tree, on Python's path."""

    name: Identifier
    repo: HttpsUrl
    commit: Revision
    tree: Revision
    folder: SafePath | None = Field(
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
    repo: HttpsUrl
    commit: Revision
    tree: Revision
    variable: VariableName = Field(description="The variable in which the node finds the folder.")
    licence: CodeLicence
    patches: TupleOf[Patch] = ()

    @field_validator("repo")
    @classmethod
    def _plain_repo(cls, repo: str) -> str:
        return plain_repo(repo)

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


class Node(StrictModel):
    """A custom node, pinned by commit, or one that lies in this repository."""

    title: Text | None = None
    source: SafePath | None = Field(
        None,
        description="A folder of this repository with its files, in the place of repo, commit and tree.",
    )
    repo: HttpsUrl | None = Field(None, description="Its repository; needed without `source`.")
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

    @field_validator("repo")
    @classmethod
    def _plain_repo(cls, repo: str | None) -> str | None:
        return repo if repo is None else plain_repo(repo)

    @field_validator("folder")
    @classmethod
    def _folder_name(cls, folder: str | None) -> str | None:
        return folder if folder is None else folder_name(folder)

    @field_validator("environment")
    @classmethod
    def _free_variables(cls, environment: dict[str, str]) -> dict[str, str]:
        for name, value in environment.items():
            free_variable(name)
            if not value.isprintable() or re.search(r"\{(?!workspace\})", value):
                raise ValueError(f"{name}: expected one line, in which {WORKSPACE} alone is filled in")
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


def free_variable(name: str) -> str:
    """Return a variable's name. Raises ValueError for one of the image itself, or of who starts a pod."""
    if _TAKEN_VARIABLES.fullmatch(name):
        raise ValueError(f"{name} is a variable of the image itself, and no node's")
    return name


def place_variable(name: str) -> str:
    """Return the name of a variable in which a node finds a folder or a program. Raises ValueError."""
    own = name.startswith("PODKILN_") and not _OF_THE_POD.fullmatch(name)
    return name if own else free_variable(name)


def plain_repo(repo: str) -> str:
    """Return the address of a repository in its one form. Raises ValueError."""
    if repo.endswith((".git", "/")):
        raise ValueError("expected the address of the repository without .git and without / at its end")
    return repo


def folder_name(folder: str) -> str:
    """Return a folder that ComfyUI looks for nodes in. Raises ValueError."""
    if not _FOLDER.fullmatch(folder):
        raise ValueError(f"{shown(folder)} is no name of a folder: letters, digits and . _ -")
    if folder.endswith((".disabled", ".py", ".pyc")) or folder in _OF_COMFYUI:
        raise ValueError(f"{shown(folder)} is a name that ComfyUI does not take for a folder with a node")
    if folder == _EXAMPLES:
        raise ValueError(f"{shown(folder)} is the folder of the image's own example workflows")
    return folder


def part_name(path: str) -> str:
    """Return what a submodule is called: the end of its path, in lower case."""
    return re.sub(r"[^a-z0-9._-]", "-", PurePosixPath(path).name.lower())
