"""What detection knows beforehand: detection.json, rendered from variants/families and variants/diffusers."""

from __future__ import annotations

import functools
import re

from pod.resolve.model_type import Types
from pod.util.dataclass import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """One kind of file of a family: what proves it, and what it is loaded with.

    `keys` must be there, `without` must not; `shapes` are leading dimensions, None for any. `name` is a
    pattern that the file's path has to fit, and then decides between kinds that have the same tensors.
    `also` are further names of the base: of the same model in its makers' layout, or of what is gone.
    """

    id: str
    family: str
    title: str
    loads: str
    base: str
    instead: str = ""
    pipeline: str = ""
    component: str = ""
    also: tuple[str, ...] = ()
    subfolder: str = "transformer"
    gated: bool = False
    halves: bool = False
    name: str = ""
    keys: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    over: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoraRule:
    """A pattern for the names of a LoRA's tensors; `width` is the width of the layer that they change."""

    family: str
    checkpoint: str
    pattern: re.Pattern[str]
    width: int | None = None
    without: re.Pattern[str] | None = None


@dataclass(frozen=True)
class Classes:
    """The classes of one release of diffusers."""

    version: str
    pipelines: Mapping[str, Mapping[str, str]]
    modular: frozenset[str]
    dummies: Mapping[str, str]
    parts: frozenset[str]
    single_file: frozenset[str]

    @functools.cached_property
    def packages(self) -> frozenset[str]:
        """The folders below diffusers/pipelines: model_index.json may name one as a component's library."""
        return frozenset(row["package"] for row in self.pipelines.values())

    def task(self, name: str) -> str:
        """Return what a pipeline makes of what."""
        return self.pipelines.get(name, {}).get("task", "")

    def tasks(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return the class for each task that the same components can do, beginning with the pipeline's own.

        Those called alike: FluxPipeline, FluxImg2ImgPipeline, FluxInpaintPipeline. What is made for one task
        beside text, as StableDiffusionInpaintPipeline is, has weights for that alone.
        """
        found = {self.task(name): name}
        for ending in ("Img2Img", "Inpaint", "VideoToVideo"):
            other = f"{name.removesuffix('Pipeline')}{ending}Pipeline"
            if other in self.pipelines:
                found.setdefault(self.task(other), other)
        return tuple(found.items())


class Knowledge:
    """Classes, families, and what is never served."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        """Read detection.json. Raises KeyError, TypeError, AttributeError, re.error."""
        rows = data["diffusers"]
        self.classes = Classes(
            rows["version"],
            rows["pipelines"],
            frozenset(rows["modular"]),
            rows["dummies"],
            frozenset(rows["parts"]),
            frozenset(rows["single_file"]),
        )
        self.unservable: Mapping[str, Any] = data["unservable"]
        self.types = Types(data["types"])
        self._pinned: dict[str, Mapping[str, Any]] = {
            name.lower(): row for name, row in data.get("bases", {}).items()
        }
        self.families: Mapping[str, Mapping[str, Any]] = data["families"]
        self.checkpoints: Mapping[str, Checkpoint] = {each.id: each for each in self._checkpoints()}

    def _checkpoints(self) -> Iterator[Checkpoint]:
        for family, row in self.families.items():
            for each in row["checkpoints"]:
                yield Checkpoint(
                    each["id"],
                    family,
                    each["title"] or row["title"],
                    each["loads"] or row["loads"],
                    each["base"],
                    row["instead"] or "",
                    each["pipeline"] or "",
                    each["class"] or row["class"] or "",
                    tuple(each["also"]),
                    each["subfolder"],
                    each["gated"],
                    each["halves"],
                    each["name"] or "",
                    tuple(each["keys"]),
                    tuple(each["without"]),
                    {key: tuple(shape) for key, shape in each["shapes"].items()},
                    tuple(each["over"]),
                )

    @functools.cached_property
    def lora_rules(self) -> tuple[LoraRule, ...]:
        """The rules for LoRAs of all families."""
        return tuple(
            LoraRule(
                family,
                rule["id"] or row["checkpoints"][0]["id"],
                re.compile(rule["pattern"]),
                rule["width"],
                re.compile(rule["without"], re.MULTILINE) if rule["without"] else None,
            )
            for family, row in self.families.items()
            for rule in row["lora"]
        )

    def named(self, table: str, word: str) -> Checkpoint | None:
        """Return what a word means in one of the tables `civitai`, `modelspec`, `kohya`."""
        for row in self.families.values():
            if word in row[table]:
                return self.checkpoints[row[table][word]]
        return None

    def of_base(self, repository: str) -> Checkpoint | None:
        """Return the checkpoint whose base a repository is, or is another name of."""
        wanted = repository.lower()
        for each in self.checkpoints.values():
            if wanted in {each.base.lower(), *(name.lower() for name in each.also)}:
                return each
        return None

    def pinned(self, repository: str) -> Mapping[str, Any]:
        """Return `revision` and `files` of a base as it is locked; nothing for one that is not."""
        return self._pinned.get(repository.lower(), {})

    def family_of(self, pipeline: str) -> str:
        """Return the family of a pipeline's class; its folder where several families, or none, have it."""
        package = self.classes.pipelines.get(pipeline, {}).get("package", "")
        found = [family for family, row in self.families.items() if package in row["packages"]]
        return found[0] if len(found) == 1 else package
