"""What a variant says of everything below its weights: base, packages, ComfyUI, CUDA."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from podkiln.config import additions
from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.fields import (
    AptPackage,
    Digest,
    Identifier,
    ImageName,
    LabelName,
    LayerName,
    PackageGlob,
    Platform,
    Port,
    PythonRequirement,
    PythonVersion,
    Release,
    Revision,
    Text,
    VariableName,
    Version,
    Workspace,
    distinct,
)
from podkiln.config.list_changes import Changeable, ListChange, PackagesChange
from podkiln.config.repository_url import RepositoryUrl


class BaseSets(StrictModel):
    """What the base image's own config sets, and the Dockerfile does not; `verify` allows no more."""

    environment: dict[VariableName, str] = Field({})
    labels: dict[LabelName, str] = Field({})


class Base(StrictModel):
    """The base image: a name for people, a digest for the build."""

    image: ImageName
    digest: Digest
    suite: Identifier = Field(description="Debian's code name of it, for an apt mirror.")
    sets: BaseSets = Field(
        BaseSets(),
        description="Variables and labels of its config that reach the image; Debian's own sets only PATH.",
    )


class PythonLayer(StrictModel):
    """Python packages that share an image layer, because they change together."""

    name: LayerName
    why: Text
    packages: TupleOf[PackageGlob] = Field(min_length=1, description="Names or globs; the first layer wins.")


class Python(StrictModel):
    """The Python environment: what is asked for; the lock says what that resolves to."""

    version: PythonVersion
    platform: Platform = Field(
        default_factory=str,  # load() fills it in, and what else has this default
        description="uv's name of the platform that wheels are chosen for; by default what the file of the "
        "CUDA release says for `platforms`.",
    )
    requirements: Text = Field(description="Requirements file, relative to the YAML file that names it.")
    layers: TupleOf[PythonLayer] = Field(min_length=1)
    add: TupleOf[PythonRequirement] = Field(
        (),
        description="Packages besides, such as `matplotlib>=3.9`, in a layer above the shared ones, which "
        "stay as they are. What a parent adds stays.",
    )

    @field_validator("layers")
    @classmethod
    def _distinct_layers(cls, layers: tuple[PythonLayer, ...]) -> tuple[PythonLayer, ...]:
        taken = {"jupyter", "uv", additions.LAYER}  # other requirements files
        others = "jupyter or uv, or additions"
        for layer in layers:
            if layer.name in taken:
                raise ValueError(f"the layer {layer.name!r} is duplicated, or is called {others}")
            taken.add(layer.name)
        return layers


class ComfyUI(StrictModel):
    """The pinned ComfyUI. `tree` is git's hash of its files; substitutes are compared with it.

    A release that is described (`./build.py comfyui`) is written alone: `comfyui: 0.33.0`, or `version`.
    """

    version: Release = Field(description="A release; with it alone, the rest is that release's.")
    repo: RepositoryUrl
    commit: Revision
    tree: Revision
    arguments: Annotated[TupleOf[str], Changeable(ListChange)] = Field(
        description="What every start passes; {port} and {root} are filled in. A list replaces the parent's; "
        "`{add: [...], remove: [...]}` changes it."
    )


class Runtime(StrictModel):
    """Everything below the weights."""

    name: Identifier = Field(
        default_factory=str,
        description="Names the lock: variants/locks/<name>/. comfyui-RELEASE-cuda-CUDA by default.",
    )
    epoch: Annotated[int, Field(gt=0)] = Field(description="SOURCE_DATE_EPOCH, seconds since 1970 UTC.")
    base: Base
    apt: Annotated[TupleOf[AptPackage], AfterValidator(distinct), Changeable(PackagesChange)] = Field(
        description="Debian packages. `{add: [...]}` installs more, in a layer above the shared ones; "
        "`{remove: [...]}` takes some out. A list replaces the parent's; it must name what the image needs."
    )
    extras: Annotated[TupleOf[Identifier], AfterValidator(distinct)] = Field(
        (), description="What most images do without, by its name in variants/system/extras.yaml: compiler."
    )
    python: Python
    jupyter: Text | None = Field(
        None,
        description="Requirements file of JupyterLab's own environment, relative to the YAML file that names "
        "it; null leaves JupyterLab out.",
    )
    jupyterlab: bool = Field(
        True,
        description="false: without JupyterLab, for pods that nobody opens in a browser; what is locked for "
        "the runtime stays the same.",
    )
    comfyui: ComfyUI
    strip: bool = Field(True, description="Leave out what variants/system/strip.yaml lists.")
    media: bool = Field(
        True,
        description="false: without the pictures and films of the workflow templates, for pods that nobody "
        "opens in a browser; 13 % less to pull.",
    )
    cuda: Version = Field(description="The CUDA release, a file of variants/cuda/.")
    driver: Version = Field(
        default_factory=str,
        description="The NVIDIA driver that has all of this CUDA: by default, and at least, what the file of "
        "the release says.",
    )
    port: Port
    workspace: Workspace
    stop_seconds: Annotated[
        int,
        Field(
            ge=1,
            le=600,
            description="Seconds that ComfyUI gets to end before it is killed. Docker gives a container 10 "
            "in all: with more, `docker stop --time` has to be longer, too.",
        ),
    ]

    @property
    def has_jupyterlab(self) -> bool:
        """Whether the image gets JupyterLab."""
        return self.jupyterlab and self.jupyter is not None
