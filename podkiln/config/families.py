"""What the server knows of models: variants/families/, and the classes of diffusers in variants/diffusers/.

Rendered together they are detection.json, which server.detection.knowledge reads in a pod and on the builder.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from podkiln.config import document, model_types
from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.fields import Version
from podkiln.config.model_types import Pattern
from podkiln.config.variant import SHIPPED
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDER: Final = SHIPPED / "families"
DIFFUSERS: Final = "0.42.1"
"""The release that images of the server have."""

Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Class = Annotated[str, Field(pattern=r"^[A-Z]\w*$")]
Repository = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
Loads = Literal["pipeline", "transformer", "nothing"]
Dimensions = TupleOf[Annotated[int, Field(ge=1)] | None]


class Checkpoint(StrictModel):
    """One kind of single file, and the repository that has what it lacks.

    A file is of this kind where it has all `keys`, none of `without`, and tensors of these `shapes` (leading
    dimensions, null for any); a key may stand behind `model.diffusion_model.`. Where several kinds have the
    same tensors, the one whose `name` fits the path of the file is meant. `also` are repositories that cards
    name as the base, of the same model in its makers' layout or gone. `loads` is the family's, where not said
    here; `subfolder` is what the component is called in the base.
    """

    id: Id
    title: str | None = None
    pipeline: Class | None = None
    class_: Class | None = Field(None, alias="class")
    base: Repository
    also: TupleOf[Repository] = ()
    loads: Loads | None = None
    subfolder: Literal["transformer", "unet"] = "transformer"
    gated: bool = False
    halves: bool = False
    name: Pattern | None = None
    keys: TupleOf[str] = Field(min_length=1)
    without: TupleOf[str] = ()
    shapes: dict[str, Dimensions] = Field({})
    over: TupleOf[Id] = ()


class LoraRule(StrictModel):
    """What a LoRA of the family has: a layer of this name, where `width` is given one of that width.

    `id` is the checkpoint that it is for, by default the family's first; `without` are layers that it lacks.
    """

    pattern: Pattern
    width: Annotated[int, Field(ge=1)] | None = None
    without: Pattern | None = None
    id: Id | None = None


class Family(StrictModel):
    """Models of one architecture: how their files are told, and what loads them.

    `loads` is what a single file holds: a whole `pipeline`, its `transformer` alone, or `nothing` that
    diffusers makes a pipeline of; then `instead` says what to choose. `packages` are folders below
    diffusers/pipelines. The tables map the words of others to checkpoints: CivitAI's baseModel,
    modelspec.architecture and ss_base_model_version in the metadata of a file.
    """

    title: str
    packages: TupleOf[str] = Field(min_length=1)
    source: str
    loads: Loads
    class_: Class | None = Field(None, alias="class")
    instead: str | None = None
    checkpoints: TupleOf[Checkpoint] = Field(min_length=1)
    lora: TupleOf[LoraRule] = ()
    civitai: dict[str, Id] = Field({})
    modelspec: dict[str, Id] = Field({})
    kohya: dict[str, Id] = Field({})

    @model_validator(mode="after")
    def _whole(self) -> Family:
        known = {each.id for each in self.checkpoints}
        tables = (self.civitai, self.modelspec, self.kohya)
        named = {value for table in tables for value in table.values()}
        named |= {each.id for each in self.lora if each.id} | {
            name for each in self.checkpoints for name in each.over
        }
        if unknown := sorted(named - known):
            raise ValueError(f"{', '.join(unknown)} is not one of the checkpoints")
        if self.loads == "nothing" and not self.instead:
            raise ValueError("says nothing of what to choose instead")
        for each in self.checkpoints:
            if self.loads != "nothing" and not (each.pipeline or each.halves):
                raise ValueError(f"{each.id} names no pipeline")
            if (each.loads or self.loads) == "transformer" and not (each.class_ or self.class_):
                raise ValueError(f"{each.id} names no class")
        return self


class Pipeline(StrictModel):
    """What a pipeline makes of what, and its folder below diffusers/pipelines."""

    task: str
    package: str


class Classes(StrictModel):
    """variants/diffusers/VERSION.yaml, as scripts/host/diffusers_classes.py writes it."""

    version: Version
    source: str
    pipelines: dict[str, Pipeline]
    single_file: TupleOf[Class]
    modular: TupleOf[Class]
    dummies: dict[str, str]
    parts: TupleOf[Class]


class Row(StrictModel):
    """A refusal: `says` continues a sentence that begins with the model's name."""

    says: str
    instead: str
    code: str = "no-route"


class Library(Row):
    """Models of another program: what their card names as library, as pattern, and a refusal."""

    name: Pattern


class Name(StrictModel):
    """How files of a kind in variants/flags/model-types.yaml are called."""

    name: Pattern
    kind: str


class Packed(StrictModel):
    """Tensors that show weights to be packed."""

    tensors: Pattern
    says: str
    instead: str


class Unservable(StrictModel):
    """variants/diffusers/unservable.yaml."""

    sources: dict[str, str]
    tasks: dict[str, Row]
    quantisers: dict[str, str]
    packed: TupleOf[Packed]
    kinds: dict[str, Row]
    names: TupleOf[Name]
    libraries: TupleOf[Library]
    pipelines: dict[str, Row]
    components: dict[str, Row]
    civitai_types: dict[str, Row]
    civitai_hosted: TupleOf[str]
    endings: dict[str, Row]

    @model_validator(mode="after")
    def _known(self) -> Unservable:
        known = {each.id for each in model_types.types().types}
        if unknown := sorted(self.kinds.keys() - known):
            raise ValueError(f"{', '.join(unknown)} is not one of the kinds in model-types.yaml")
        if unknown := sorted({each.kind for each in self.names} - self.kinds.keys()):
            raise ValueError(f"{', '.join(unknown)} is not one of the kinds above")
        return self


@cache
def load(folder: Path = FOLDER) -> Mapping[str, Family]:
    """Load all families, by id. Raises DescriptionError, also where two of them claim one word or id."""
    found: dict[str, Family] = {}
    claimed: dict[tuple[str, str], str] = {}
    for path in document.files(folder):
        source = document.load(path)
        family = source.parse(Family)
        words = [("checkpoints", each.id) for each in family.checkpoints]
        words += [("also", name) for each in family.checkpoints for name in each.also]
        words += [(key, word) for key in ("civitai", "modelspec", "kohya") for word in getattr(family, key)]
        for key, word in words:
            if (key, word) in claimed:
                raise source.error((key,), f"{word!r} is {claimed[key, word]}'s already.")
            claimed[key, word] = path.stem
        found[path.stem] = family
    return found


@cache
def classes(version: str = DIFFUSERS) -> Classes:
    """Load the classes of a release of diffusers. Raises DescriptionError."""
    return document.load(SHIPPED / "diffusers" / f"{version}.yaml").parse(Classes)


@cache
def unservable() -> Unservable:
    """Load what is never served. Raises DescriptionError."""
    return document.load(SHIPPED / "diffusers" / "unservable.yaml").parse(Unservable)


def to_json(version: str = DIFFUSERS) -> dict[str, Any]:
    """Return detection.json. Raises DescriptionError where a family names a class that diffusers lacks."""
    known = classes(version)
    families = {name: each.model_dump(mode="json", by_alias=True) for name, each in load().items()}
    for name, row in families.items():
        del row["source"]
        named = {each["pipeline"] for each in row["checkpoints"]} - {None}
        parts = {each["class"] for each in (*row["checkpoints"], row)} - {None}
        lacking = sorted(named - known.pipelines.keys()) + sorted(parts - set(known.parts))
        if lacking:
            raise DescriptionError(
                f"{FOLDER / name}.yaml:1: diffusers {version} has no class {lacking[0]}.",
                hint="`scripts/host/diffusers_classes.py` writes down what a release has.",
            )
    return {
        "schema": 1,
        "diffusers": known.model_dump(mode="json", exclude={"source"}),
        "families": families,
        "unservable": unservable().model_dump(mode="json", exclude={"sources"}),
        "types": model_types.to_json(),
    }
