"""All presets: what variants/presets/ says, checked against the workflows and the nodes' definitions.

What an image has of them is presets.json, which the worker reads (scripts/worker/presets.py); so a preset is
tried out here with the worker's own code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pod.util.article import an
from podkiln.config import catalog, document, node_definitions, workflow
from podkiln.config.fields import IDENTIFIER
from podkiln.config.node_definitions import COMBO
from podkiln.config.preset import MEDIA, Preset
from podkiln.config.variant import SHIPPED
from podkiln.config.workflow import Files
from podkiln.errors import DescriptionError
from podkiln.util import strict_json
from podkiln.util.quoting import did_you_mean, shown
from worker import preset_inputs
from worker import presets as filling

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from comfy.workflow import Nodes
    from podkiln.config.catalog import Entry, VariantModel
    from podkiln.config.document import Document
    from podkiln.config.node_definitions import Input, Package
    from podkiln.config.preset import PresetInput
    from podkiln.config.variant import LoadedVariant

FOLDER: Final = SHIPPED / "presets"
_ACCEPTS: Final = {
    "string": ("STRING",),
    "integer": ("INT", "FLOAT"),
    "number": ("FLOAT",),
    "boolean": ("BOOLEAN",),
    "choice": (COMBO, "STRING", "INT", "FLOAT"),
}


@dataclass(frozen=True)
class PresetEntry:
    """A preset under its id, and the file that describes it."""

    id: str
    preset: Preset
    source: Document

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it needs: the workflow's first."""
        return tuple(dict.fromkeys((self.preset.workflow, *self.preset.models)))

    def error(self, location: tuple[str | int, ...], what: str) -> DescriptionError:
        """Make the error for a key of it."""
        return self.source.error(location, what)


@cache
def load(folder: Path = FOLDER) -> Mapping[str, PresetEntry]:
    """Load every preset of a folder, by id. Raises DescriptionError."""
    found = {}
    for path in document.files(folder):
        if not re.fullmatch(IDENTIFIER, path.stem):
            raise DescriptionError(
                f"{path}:1: the file's name is the preset's id: use only lower-case letters, digits and . _ -"
            )
        source = document.load(path)
        found[path.stem] = PresetEntry(path.stem, source.parse(Preset), source)
    return found


def offered(models: Iterable[VariantModel], folder: Path = FOLDER) -> list[PresetEntry]:
    """Return the presets that an image has: those whose models it offers and can run."""
    there = {each.id for each in models if not each.unmet and _is_shipped(each.entry)}
    return [each for each in load(folder).values() if there.issuperset(each.models)]


def check(described: LoadedVariant, models: Iterable[VariantModel]) -> None:
    """Check the preset that a variant fixes. Raises DescriptionError."""
    name = described.spec.preset
    if name is None:
        return
    known = load()
    if name not in known:
        raise described.error(
            ("preset",),
            f"there is no preset {shown(name)}. {did_you_mean(name, known)}".rstrip(),
            hint=f"There are: {', '.join(known)}.",
        )
    models = list(models)
    for model in known[name].models:
        offer = next((each for each in models if each.id == model), None)
        if offer is None:
            what = (
                f"the preset {shown(name)} needs the model {shown(model)}, which this variant does not offer."
            )
            raise described.error(
                ("preset",), what, hint=f"`models: {{offer: {{add: [{model}]}}}}` offers it."
            )
        if offer.unmet:
            lacks = " and ".join(offer.unmet)
            what = f"the preset {shown(name)} needs the model {shown(model)}, which needs {lacks}."
            raise described.error(("preset",), what)


def to_json(
    described: LoadedVariant, models: Iterable[VariantModel], folder: Path = FOLDER
) -> dict[str, Any]:
    """Return presets.json: what the worker fills workflows by."""
    models = list(models)
    return {
        "schema": 1,
        "variant": described.name,
        "preset": described.spec.preset,
        "presets": [
            row(each, {offer.id: offer.entry for offer in models}, described.nodes)
            for each in offered(models, folder)
        ],
    }


def examples(described: LoadedVariant, models: Iterable[VariantModel]) -> dict[str, dict[str, Any]]:
    """Return an example of a request for each preset of an image: what RunPod calls test_input.json."""
    rows = to_json(described, models)["presets"]
    return {each["id"]: filling.example(filling.Preset.from_json(each, {})) for each in rows}


def row(entry: PresetEntry, models: Mapping[str, Entry], nodes: Iterable[str]) -> dict[str, Any]:
    """Return one preset as presets.json has it.

    Args:
        entry: The preset.
        models: Descriptions of its models.
        nodes: The custom nodes of the image.
    """
    there, said = set(nodes), data(entry.preset.workflow)
    return {
        "id": entry.id,
        "title": entry.preset.title,
        "summary": " ".join(entry.preset.summary.split()),
        "workflow": entry.preset.workflow,
        "models": [_needed(models[name]) for name in entry.models],
        "inputs": {name: _input(each, said, models, there) for name, each in entry.preset.inputs.items()},
        "unused": dict(entry.preset.unused),
    }


def _needed(entry: Entry) -> dict[str, str]:
    return {"id": entry.id, "title": entry.model.title, "env": entry.env}


def _input(
    described: PresetInput, nodes: Nodes, models: Mapping[str, Entry], there: set[str]
) -> dict[str, Any]:
    """Return an input as presets.json has it: what is not said is left out."""
    own = {"nodes", "models"}
    said = described.model_dump(mode="json", exclude_defaults=True, exclude=own, exclude_none=True)
    said = {"type": described.type, "at": list(described.at), **said}
    if described.default is None and described.type not in MEDIA and not described.random:
        node, _, name = described.at[0].partition(".")
        value = nodes.get(node, {"inputs": {}})["inputs"].get(name)
        said["default"] = _word(described, value)
    if described.required:  # for an example alone
        said["required"] = True
    if isinstance(described.choices, tuple):
        said["choices"] = {word: word for word in described.choices}
    lacking = [f"node:{each}" for each in described.nodes if each not in there]
    if lacking := [*lacking, *(f"model:{each}" for each in described.models if each not in models)]:
        said["unmet"] = lacking
    elif described.models:
        said["models"] = [_needed(models[each]) for each in described.models]
    return said


def _word(described: PresetInput, value: Any) -> Any:
    if not isinstance(described.choices, dict):
        return value
    return next((word for word, each in described.choices.items() if each == value), value)


def data(name: str) -> Nodes:
    """Return an example workflow in the API form. Raises DescriptionError."""
    workflow.load(name)
    nodes: Nodes = strict_json.parse(workflow.path_of(name).read_text(encoding="utf-8"))
    return nodes


def problems(folder: Path = FOLDER) -> list[str]:
    """Return what is wrong with presets, a sentence each. Raises DescriptionError."""
    known, packages = catalog.load(), node_definitions.load()
    found: list[str] = []
    for entry in load(folder).values():
        try:
            found += _Check(entry, known, packages).all()
        except DescriptionError as wrong:
            found.append(str(wrong))
    return found


class _Check:
    def __init__(
        self, entry: PresetEntry, known: Mapping[str, Entry], packages: Mapping[str, Package]
    ) -> None:
        self._entry = entry
        self._known = known
        self._packages = packages

    def all(self) -> Iterator[str]:
        entry = self._entry
        self._refuse_unknown()
        there = {name for each in entry.preset.inputs.values() for name in each.nodes}
        made = filling.Preset.from_json(row(entry, self._known, there), data(entry.preset.workflow))
        for name, each in entry.preset.inputs.items():
            for number, place in enumerate(each.at):
                self._place(name, number, place, each, made)
        model = self._known[entry.preset.workflow].model
        others = {*entry.models, *model.example_with}
        others |= {each for other in entry.preset.inputs.values() for each in other.models}
        files = Files.of(*(self._known[each].model for each in others))
        said = set[str]()
        for trial, values in _trials(made):
            nodes = workflow.of(entry.preset.workflow, filling.filled(made, values), entry.source.path)
            wider = model.model_copy(
                update={"requires": (*model.requires, *(f"node:{each}" for each in there))}
            )
            for what in workflow.problems(nodes, self._packages, wider, files):
                if what not in said:
                    said.add(what)
                    yield f"{entry.source.path.name}, {trial}: {what}"

    def _refuse_unknown(self) -> None:
        entry = self._entry
        places: list[tuple[tuple[str | int, ...], str]] = [(("workflow",), entry.preset.workflow)]
        places += [(("models", number), name) for number, name in enumerate(entry.preset.models)]
        places += [
            (("inputs", key, "models", number), name)
            for key, each in entry.preset.inputs.items()
            for number, name in enumerate(each.models)
        ]
        for place, name in places:
            if name not in self._known:
                what = f"there is no model {shown(name)}. {did_you_mean(name, self._known)}".rstrip()
                raise entry.error(place, what)
        if entry.preset.workflow not in workflow.names():
            raise entry.error(("workflow",), f"{shown(entry.preset.workflow)} has no example workflow.")

    def _place(self, name: str, number: int, place: str, each: PresetInput, made: filling.Preset) -> None:
        key = ("inputs", name, "at", number)
        node, _, target = place.partition(".")
        nodes = filling.filled(made, {name: None}) if each.adds else {**_added(made), **made.nodes}
        if node not in nodes:
            raise self._entry.error(key, f"the workflow has no node {node}.")
        known = self._class(nodes[node]["class_type"])
        found = known.input(target) if known else None
        if known is None:
            return  # said of the workflow
        if found is None:
            meant = did_you_mean(target, [other.name for other in known.inputs])
            raise self._entry.error(key, f"{known.name} has no input {shown(target)}. {meant}".rstrip())
        if not found.widget:
            raise self._entry.error(key, f"{shown(target)} of {known.name} is {an(found.type)}, over a link.")
        if not _fits(each, found):
            what = f"{shown(target)} of {known.name} is {an(found.type)}, and this is of type {each.type}."
            raise self._entry.error(key, what)

    def _class(self, name: str) -> node_definitions.NodeClass | None:
        return next((each.classes[name] for each in self._packages.values() if name in each.classes), None)


def _fits(each: PresetInput, found: Input) -> bool:
    if each.type in MEDIA:
        return found.type == COMBO and "input" in (found.folders or {})
    return found.type in _ACCEPTS[each.type]


def _added(made: filling.Preset) -> Nodes:
    """Return the nodes that come with some input: others may say something to them, too."""
    adds = [item for each in made.inputs.values() for item in each.adds.items()]
    return {number: dict(node) for number, node in adds if "class_type" in node}


def _trials(made: filling.Preset) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield values to try a preset with, each with a name: defaults, limits, what replaces others."""
    usual = {name: _any(each) for name, each in made.inputs.items() if not each.instead_of}
    yield "by its defaults", usual
    for name, each in made.inputs.items():
        limits = [limit for limit in (each.min, each.max) if limit is not None]
        if each.random and each.max is None:
            limits.append(preset_inputs.LARGEST_RANDOM)
        for value in (*limits, *each.choices.values()):
            yield f"{name} {value}", {**usual, name: int(value) if each.type == "integer" else value}
        if each.instead_of:
            rest = {key: value for key, value in usual.items() if key not in each.instead_of}
            yield f"with {name}", {**rest, name: _any(each)}


def _any(each: preset_inputs.Input) -> Any:
    """Return a value that an input may have."""
    if each.type in MEDIA:
        return f"example.{each.type}"
    if each.random:
        return int(each.min or 0)
    return each.choices.get(each.default, each.default) if each.choices else each.default


def _is_shipped(entry: Entry) -> bool:
    return entry.source.path.parent == catalog.MODELS
