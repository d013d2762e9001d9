"""The keys of a variant: what its YAML may say, once its parents are merged in."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from podkiln.config.cuda_releases import AMD64, ImagePlatform
from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.fields import (
    Identifier,
    OwnLabel,
    RegistryName,
    RepositoryName,
    Text,
    distinct,
)
from podkiln.config.list_changes import Changeable, ModelsChange
from podkiln.config.model import Model, Tier
from podkiln.config.node import Node
from podkiln.config.node_list import NodesForm
from podkiln.config.runtime import Runtime
from podkiln.config.served_model import ServedModel

_OF_THE_POD = (
    "unknown key: the variables of a pod are set in its template, not here (docs/reference/environment.md)."
)
_OF_THE_RUNTIME = "unknown key: it stands under `runtime:`."
_REMOVED_PYTHON = (
    "unknown key: Python packages are only added; `requirements` names another list in the place of all that "
    "is shared (docs/how-to/python-packages.md)."
)


class Image(StrictModel):
    """How the image is named and labelled."""

    registry: RegistryName | None = Field(
        None,
        description="HOST/NAMESPACE that `--push` goes to without --registry and PODKILN_REGISTRY.",
    )
    repository: RepositoryName = Field(description="The image's name, behind registry and namespace.")
    labels: dict[OwnLabel, str] = Field({})


class Models(StrictModel):
    """Which models the image offers, switches on by default, and bakes."""

    offer: Annotated[Literal["all", "tier"] | TupleOf[Identifier], Changeable(ModelsChange)] = Field(
        description="all: every model there is. tier: those that list this variant's tier. Or a list of ids. "
        "`{add: [...], remove: [...]}` changes what the parent offers; so it does below."
    )
    default: Annotated[TupleOf[Identifier], Changeable(ModelsChange)] = ()
    bake: Annotated[TupleOf[Identifier], Changeable(ModelsChange)] = ()
    above: Annotated[TupleOf[Identifier], Changeable(ModelsChange)] = Field(
        (),
        description="Those of `bake` whose weights lie above the runtime: pulled alone when they are added "
        "later, but again after each change of the runtime on engines that store by chain id (overlay2).",
    )


def _one_platform(platforms: tuple[ImagePlatform, ...]) -> tuple[ImagePlatform, ...]:
    if len(platforms) != 1:
        raise ValueError("expected one platform: an image for another one is a variant of its own")
    return platforms


class Variant(StrictModel):
    """A whole variant, after its parents are merged in."""

    ELSEWHERE: ClassVar = {
        **dict.fromkeys(("env", "environment", "variables"), _OF_THE_POD),
        **dict.fromkeys(("apt", "python", "extras", "comfyui"), _OF_THE_RUNTIME),
        "remove": _REMOVED_PYTHON,
    }

    extends: str | None = None
    abstract: bool = Field(False, description="Only to be extended, never built.")
    title: Text
    description: Text
    tier: Tier | None = None
    vram_gb: Annotated[TupleOf[Annotated[int, Field(gt=0, le=4096)]], AfterValidator(distinct)] = Field(
        (), description="Cards it is meant for, nominal GB."
    )
    profile: Literal["dynamic", "conservative", "no_xformers"]
    platforms: Annotated[TupleOf[ImagePlatform], AfterValidator(_one_platform)] = Field(
        (AMD64,), description="What the image is built for: one platform."
    )
    serve: Literal["runpod", "http", "diffusers"] | None = Field(
        None,
        description="What takes jobs for ComfyUI in the pod, which then has no page unless a login is set. "
        "runpod: a worker of RunPod's queue, with the runpod SDK in a layer above the shared ones. "
        "http: podkiln's HTTP server. null: none, a pod. diffusers: no ComfyUI at all, but a server of the "
        "one model that `MODEL_ID` names, with diffusers in that layer.",
    )
    model: ServedModel | None = Field(
        None,
        description="With `serve: diffusers`: the model that is served where `MODEL_ID` names no other one. "
        "`lock` pins its files, and pods take these.",
    )
    runtime: Runtime
    image: Image
    models: Models
    preset: Identifier | None = Field(
        None,
        description="The preset that requests to a serverless worker mean where they name none and bring no "
        "workflow: a file of variants/presets/.",
    )
    define: dict[Identifier, Model] = Field({}, description="Models of your own, described in place.")
    nodes: Annotated[dict[Identifier, Node], NodesForm()] = Field(
        {},
        description="Custom nodes, in the order of their layers: a list of ids of variants/nodes/, which "
        "replaces the parent's, or a mapping: `add` and `remove` change the parent's, and any other key "
        "describes a node in place.",
    )

    @property
    def has_comfyui(self) -> bool:
        """Whether ComfyUI lies in the image, and what goes with one release of it."""
        return self.serve != "diffusers"
