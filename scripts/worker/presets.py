"""Presets: workflows with named inputs, so that a request says a prompt and a size and not a graph.

The image has them as data, presets.json beside models.json, which the builder writes from variants/presets/;
their workflows are the examples in workflows/. Without that file there are none.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pod.model_refs import models_json
from pod.util import files
from pod.util.env import nearest
from pod.util.printable import shown
from worker import fetching, preset_inputs
from worker.errors import JobError
from worker.preset_inputs import Input, Needed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from comfy.workflow import Named, Nodes

NAME: Final = "presets.json"
KEY: Final = "preset"
BESIDE: Final = frozenset(
    {KEY, "comfy_org_api_key", "api_key_comfy_org", "legacy_outputs", "refresh_worker", "s3Config"}
)
"""Fields of a request that are no preset's inputs."""
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_MOST_SAID: Final = 20
"""Fields that are named as unknown: whoever sends thousands of them learns it by these."""
_BAKED: Final = "/opt/models"
_VOLUMES: Final = ("/runpod-volume/input", "/workspace/input")  # before anybody has decided where it is


@dataclass(frozen=True)
class Preset:
    """A workflow with named inputs.

    `unused`: fields of other workers' requests that are taken and say nothing here, each with the reason.
    """

    id: str
    title: str
    summary: str
    nodes: Nodes
    inputs: Mapping[str, Input]
    models: tuple[Needed, ...] = ()
    unused: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, row: Mapping[str, Any], nodes: Nodes) -> Preset:
        """Read an entry of presets.json. Raises KeyError, TypeError."""
        inputs = {name: Input.from_json(name, each) for name, each in row["inputs"].items()}
        models = tuple(Needed(**each) for each in row["models"])
        return cls(row["id"], row["title"], row["summary"], nodes, inputs, models, row["unused"])


@dataclass(frozen=True)
class Asked:
    """What a request for a preset comes to. `said`: what its answer has beside the results."""

    nodes: Nodes
    files: tuple[Named, ...]
    said: Mapping[str, Any]


def schema(preset: Preset) -> dict[str, Any]:
    """Return the JSON Schema of what stands under `input` of a request."""
    inputs = {name: each.schema for name, each in preset.inputs.items() if not each.unmet}
    replaced = {other for each in preset.inputs.values() if not each.unmet for other in each.instead_of}
    required = [name for name, each in preset.inputs.items() if each.required and name not in replaced]
    either = [
        {"oneOf": [{"required": [name]}, *({"required": [each]} for each in _instead_of(preset, name))]}
        for name in sorted(replaced)
        if preset.inputs[name].required
    ]
    return {
        "$schema": _DIALECT,
        "title": preset.title,
        "description": preset.summary,
        "type": "object",
        "properties": {KEY: {"const": preset.id}, **inputs},
        "required": required,
        **({"allOf": either} if either else {}),
    }


def _instead_of(preset: Preset, name: str) -> list[str]:
    return [each.name for each in preset.inputs.values() if name in each.instead_of and not each.unmet]


def example(preset: Preset) -> dict[str, Any]:
    """Return an example of a request: what it must say, and the rest as it is by default.

    Files in it are placeholders.
    """
    inputs = {
        name: each.example
        for name, each in preset.inputs.items()
        if each.example is not None and not each.instead_of and not each.random
    }
    return {"input": {KEY: preset.id, **inputs}}


def filled(preset: Preset, values: Mapping[str, Any]) -> Nodes:
    """Return the workflow with the values of inputs in it."""
    nodes = copy.deepcopy(preset.nodes)
    for name in values:
        for number in preset.inputs[name].removes:
            nodes.pop(number, None)
        for number, node in preset.inputs[name].adds.items():
            there = nodes.setdefault(number, {"inputs": {}})
            inputs = {**there["inputs"], **copy.deepcopy(node.get("inputs", {}))}
            nodes[number] = {**there, **node, "inputs": inputs}
    for name, value in values.items():
        for target in preset.inputs[name].at:
            if target.node in nodes:
                nodes[target.node]["inputs"][target.input] = value
    return nodes


@dataclass(frozen=True)
class Presets:
    """The presets of an image.

    Args:
        known: By id.
        fixed: The one that requests mean that name none, and have no workflow.
        root: The image's data.
        run: The pod's run folder, in which stands what was decided at the start.
        baked: Where models of the image lie.
    """

    known: Mapping[str, Preset] = field(default_factory=dict)
    fixed: str | None = None
    root: Path = Path("/opt/podkiln")
    run: Path = Path("/run/podkiln")
    baked: str = _BAKED

    @classmethod
    def load(cls, root: Path, run: Path) -> Presets:
        """Read presets.json and its workflows. Raises PodError where the image is damaged."""
        if not (root / NAME).is_file():
            return cls(root=root, run=run)

        def read(data: Any) -> Presets:
            known = {row["id"]: Preset.from_json(row, _workflow(root, row)) for row in data["presets"]}
            return cls(known, data["preset"], root, run)

        return files.read_image_data(root / NAME, read)

    def meant(self, given: Mapping[str, Any]) -> Preset | None:
        """Return the preset that a request means; None where it brings a workflow. Raises JobError."""
        name = given.get(KEY)
        if name is None and (given.get("workflow") is not None or self.fixed is None):
            return None
        if given.get("workflow") is not None:
            raise JobError(f"'{KEY}' and 'workflow' exclude each other: give one of them")
        name = self.fixed if name is None else name
        if not isinstance(name, str) or name not in self.known:
            near = nearest(str(name)[:100], self.known)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(self.known) or 'none'}."
            raise JobError(f"This worker has no preset {shown(name, 60)}: {hint}")
        return self.known[name]

    def ask(self, preset: Preset, given: Mapping[str, Any]) -> Asked:
        """Return the workflow for a request. Raises JobError, with a detail for each field that is wrong."""
        values, wrong = preset_inputs.read(preset.inputs, given, self._folders())
        wrong += _strangers(preset, given)
        if wrong:
            raise JobError(
                f"The request does not fit the preset {preset.id}: {len(wrong)} of its fields "
                f"{'is' if len(wrong) == 1 else 'are'} wrong",
                wrong,
            )
        if missing := list(self._missing(preset, values.given)):
            raise JobError(missing[0], missing[1:])
        notes = [
            f"{name} is not used: {why}."
            for name, why in preset.unused.items()
            if given.get(name) is not None
        ]
        said = {KEY: preset.id, **values.drawn, **({"notes": notes} if notes else {})}
        return Asked(filled(preset, values.given), tuple(values.files.values()), said)

    def _decided(self) -> dict[str, Any]:
        return files.recall(self.run / "decision.json")

    def _folders(self) -> list[Path]:
        """Return the input folders of the volume: ComfyUI's own, and the one of a serverless worker's."""
        volume = self._decided().get("volume")
        own = [volume["input"]] if isinstance(volume, dict) and isinstance(volume.get("input"), str) else []
        return [Path(each) for each in dict.fromkeys((*own, *_VOLUMES)) if Path(each).is_dir()]

    def _missing(self, preset: Preset, given: Iterable[str]) -> Iterable[str]:
        """Return a sentence for each model that is not there. Before a start has decided, none."""
        decided = self._decided()
        rows = decided.get("models")
        if not isinstance(rows, list):
            return
        enabled = {row.get("id") for row in rows if isinstance(row, dict) and row.get("enabled")}
        listed = models_json.read(self.root / "models.json")
        folders = models_json.folders(self.root).known
        bases = self._models_folders(decided.get("volume"))
        also = [model for name in given for model in preset.inputs[name].models]
        for model in (*preset.models, *also):
            wanted = [file for file in listed.get(model.id, ()) if not file.optional]
            if all(_lies(bases, folders, file.folder, file.name) for file in wanted):
                continue
            if model.id in enabled:
                # One that is on its way the job waits for (worker/fetching.py).
                if why := fetching.of_model(model.id, self.run):
                    yield f"The model {model.title} {why}."
            else:
                yield (
                    f"The preset {preset.id} needs the model {model.title}, which this worker does not have: "
                    f"set {model.env}=true for it."
                )

    def _models_folders(self, volume: Any) -> list[str]:
        about = volume if isinstance(volume, dict) else {}
        others = [each for each in about.get("models") or () if isinstance(each, str)]
        workspace = [f"{each}/models" for each in (about.get("workspace"), about.get("root")) if each]
        return [self.baked, *workspace, *others]


NONE: Final = Presets()


def _workflow(root: Path, row: Mapping[str, Any]) -> Nodes:
    """Return the example workflow that a preset is made of."""
    name = row["workflow"]
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise ValueError(f"{name!r} is no name of a workflow")
    nodes: Nodes = json.loads((root / "workflows" / f"{name}.api.json").read_bytes())
    return nodes


def _strangers(preset: Preset, given: Mapping[str, Any]) -> list[str]:
    known = (*preset.inputs, *preset.unused, *BESIDE)
    said: list[str] = []
    for name in given:
        if name not in known and len(said) < _MOST_SAID:
            near = nearest(name[:100], [*preset.inputs])
            hint = f"did you mean {near}?" if near else f"there are {', '.join(preset.inputs)}."
            said.append(f"{shown(name, 60)}: the preset has no such input: {hint}")
    return said


def _lies(bases: Sequence[str], folders: Mapping[str, Sequence[str]], folder: str, name: str) -> bool:
    """Tell whether a model's file lies in one of the models folders, under the old names of folders too."""
    first, slash, rest = folder.partition("/")
    names = folders.get(first, (first,))
    return any(Path(f"{base}/{each}{slash}{rest}", name).is_file() for base in bases for each in names)
