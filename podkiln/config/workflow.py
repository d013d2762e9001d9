"""An example workflow of a model in ComfyUI's API form, variants/workflows/ID.api.json: whether it can run.

The form is what ComfyUI's page writes with *Export (API)*: nodes by id, each with a class, its inputs (a
value, or the id of another node and the number of its output) and, under `_meta`, a title for people.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from pod.util.article import an
from podkiln.config.node_definitions import COMBO, COMFYUI, DYNAMIC
from podkiln.config.variant import SHIPPED
from podkiln.errors import DescriptionError
from podkiln.util import strict_json
from podkiln.util.quoting import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from podkiln.config.model import Model
    from podkiln.config.node_definitions import Input, NodeClass, Package

FOLDER: Final = SHIPPED / "workflows"
API: Final = ".api.json"
_MODEL_FILE: Final = re.compile(r"\.(safetensors|sft|ckpt|pth?|bin|onnx|gguf)$")
_NUMBERS: Final = {"INT": (int,), "FLOAT": (int, float)}


@dataclass(frozen=True)
class Link:
    """Where an input gets its value from: output number `slot` of a node."""

    node: str
    slot: int


@dataclass(frozen=True)
class Node:
    """One node of a workflow."""

    id: str
    class_type: str
    title: str
    values: Mapping[str, Any]
    links: Mapping[str, Link]


@dataclass(frozen=True)
class Workflow:
    """The nodes of a workflow, by id; `model` is the id of the model that it is for."""

    model: str
    nodes: Mapping[str, Node]


@dataclass(frozen=True)
class Files:
    """What a model's description puts below models/, the optional files too."""

    destinations: frozenset[str]

    @classmethod
    def of(cls, *models: Model) -> Files:
        """Return the files of models."""
        return cls(frozenset(file.destination for model in models for file in model.files))

    def holds(self, folder: str, name: str) -> bool:
        """Tell whether there is a file, or a folder with files, of that name in a models folder."""
        path = f"{folder}/{name}"
        return any(each == path or each.startswith(f"{path}/") for each in self.destinations)

    def named(self, name: str) -> bool:
        """Tell whether a file is called so, with as much of its folder as is said."""
        return any(f"/{each}".endswith(f"/{name}") for each in self.destinations)


def path_of(model: str, folder: Path = FOLDER) -> Path:
    """Return where a model's workflow lies."""
    return folder / f"{model}{API}"


def names(folder: Path = FOLDER) -> list[str]:
    """Return the models that have a workflow."""
    return sorted(path.name.removesuffix(API) for path in folder.glob(f"*{API}"))


def load(model: str, folder: Path = FOLDER) -> Workflow:
    """Read a model's workflow. Raises DescriptionError."""
    path = path_of(model, folder)
    try:
        data = strict_json.parse(path.read_text(encoding="utf-8"))
    except ValueError as wrong:
        raise DescriptionError(f"{path}: this is no JSON ({wrong}).") from None
    except OSError as wrong:
        raise DescriptionError(f"{path}: cannot be read ({wrong.strerror}).") from None
    return of(model, data, path)


def of(model: str, data: Any, path: Path) -> Workflow:
    """Read a workflow that stands in a file, or is made of one. Raises DescriptionError."""
    if not isinstance(data, dict) or not data:
        raise DescriptionError(f"{path}: {_NO_API}")
    return Workflow(model, {key: _node(path, key, said) for key, said in data.items()})


_NO_API: Final = "this is no workflow in the API form: expected what ComfyUI's page writes with Export (API)."


def _node(path: Path, key: str, said: Any) -> Node:
    if not isinstance(said, dict) or not isinstance(said.get("class_type"), str):
        raise DescriptionError(f"{path}: {_NO_API}")
    if not key.isdecimal():
        raise DescriptionError(f"{path}: the id of a node is a number (it is {shown(key)}).")
    inputs, meta = said.get("inputs", {}), said.get("_meta", {})
    for name, mapping in (("inputs", inputs), ("_meta", meta)):
        if not isinstance(mapping, dict):
            raise DescriptionError(f"{path}: node {key}: {name} is no mapping (it is {shown(mapping)}).")
    links = {name: Link(value[0], value[1]) for name, value in inputs.items() if _is_link(value)}
    values = {name: value for name, value in inputs.items() if name not in links}
    title = meta.get("title")
    return Node(key, said["class_type"], title if isinstance(title, str) else "", values, links)


def _is_link(value: Any) -> bool:
    """Tell whether an input is a link, as ComfyUI tells it (execution.py, is_link of graph_utils.py)."""
    match value:
        case [str(), int()]:
            return True
    return False


def order(workflow: Workflow) -> list[str]:
    """Return the ids of the nodes, each behind those that it is linked to. Raises CycleError."""
    before = {key: [link.node for link in node.links.values()] for key, node in workflow.nodes.items()}
    return [key for key in TopologicalSorter(before).static_order() if key in workflow.nodes]


def packages_used(workflow: Workflow, packages: Mapping[str, Package]) -> list[str]:
    """Return the ids of the custom nodes that a workflow needs."""
    classes = {node.class_type for node in workflow.nodes.values()}
    return [name for name, each in packages.items() if name != COMFYUI and classes & each.classes.keys()]


def problems(workflow: Workflow, packages: Mapping[str, Package], model: Model, files: Files) -> list[str]:
    """Return what keeps a workflow from running: a sentence each, with workflow, node and class.

    Args:
        workflow: What is checked.
        packages: All definitions, by package.
        model: The model that it is for.
        files: What lies below models/ when the model, and all that it requires, is there.
    """
    check = _Check(workflow, packages, model, files)
    return list(check.all())


@dataclass(frozen=True)
class _Check:
    workflow: Workflow
    packages: Mapping[str, Package]
    model: Model
    files: Files

    def all(self) -> Iterator[str]:
        ends = False
        for node in self.workflow.nodes.values():
            known = self._class(node)
            ends = ends or (known is not None and known.ends)
            for what in self._node(node, known):
                yield f"{self.workflow.model}{API}: node {node.id} ({node.class_type}): {what}."
        if not ends:
            yield f"{self.workflow.model}{API}: no node of it saves or shows anything."
        try:
            order(self.workflow)
        except CycleError as circle:
            nodes = " and ".join(dict.fromkeys(circle.args[1]))
            yield f"{self.workflow.model}{API}: the nodes {nodes} are linked in a circle."

    def _class(self, node: Node) -> NodeClass | None:
        found = (package.classes.get(node.class_type) for package in self.packages.values())
        return next((each for each in found if each), None)

    def _node(self, node: Node, known: NodeClass | None) -> Iterator[str]:
        if known is None:
            every = [name for package in self.packages.values() for name in package.classes]
            yield f"there is no such class. {did_you_mean(node.class_type, every)}".rstrip(" .")
            return
        if known.package != COMFYUI and f"node:{known.package}" not in self.model.requires:
            yield f"it comes with node:{known.package}, which the model does not require"
        for name in (*node.values, *node.links):
            if known.input(name) is None:
                meant = did_you_mean(name, [each.name for each in known.inputs])
                yield f"it has no input {shown(name)}. {meant}".rstrip(" .")
        for each in known.inputs:
            yield from self._input(node, each)

    def _input(self, node: Node, known: Input) -> Iterator[str]:
        name = known.name
        if name in node.links:
            yield from self._link(name, known, node.links[name])
        elif name not in node.values:
            # An optional value may be left out for ComfyUI; the editor form needs it all the same.
            if not known.optional or known.widget:
                yield f"its input {shown(name)} is missing"
        elif not known.widget:
            yield f"its input {shown(name)} is {an(known.type)}, which comes over a link"
        else:
            yield from self._value(known, node.values[name])

    def _link(self, name: str, known: Input, link: Link) -> Iterator[str]:
        other = self.workflow.nodes.get(link.node)
        source = self._class(other) if other else None
        if other is None:
            yield f"its input {shown(name)} is linked to node {link.node}, which is not there"
        elif source and not 0 <= link.slot < len(source.outputs):
            where = f"output {link.slot} of node {link.node}"
            yield f"its input {shown(name)} is linked to {where}, which has none"
        elif source and not known.accepts(source.outputs[link.slot][0]):
            given = source.outputs[link.slot][0]
            yield f"its input {shown(name)} is {an(known.type)}, and node {link.node} gives {an(given)}"

    def _value(self, known: Input, value: Any) -> Iterator[str]:
        named = f"its input {shown(known.name)}"
        if known.type in (COMBO, DYNAMIC):
            yield from self._choice(named, known, value)
        elif known.type in _NUMBERS and (
            isinstance(value, bool) or not isinstance(value, _NUMBERS[known.type])
        ):
            yield f"{named} is no {known.type} ({shown(value)})"
        elif known.type in _NUMBERS:
            if (known.min is not None and value < known.min) or (known.max is not None and value > known.max):
                yield f"{named} is {value}, and goes from {known.min} to {known.max}"
        elif known.type == "BOOLEAN" and not isinstance(value, bool):
            yield f"{named} is no BOOLEAN ({shown(value)})"
        elif known.type == "STRING" and not isinstance(value, str):
            yield f"{named} is no STRING ({shown(value)})"
        elif isinstance(value, str) and _MODEL_FILE.search(value) and not self.files.named(value):
            yield f"{named} names the file {shown(value)}, which the model does not have"

    def _choice(self, named: str, known: Input, value: Any) -> Iterator[str]:
        if value in known.choices:
            return
        if not known.folders:
            meant = did_you_mean(str(value), [str(each) for each in known.choices])
            yield f"{named} cannot be {shown(value)}. {meant}".rstrip(" .")
            return
        if "input" in known.folders:  # a picture or video of who uses it
            return
        held = any(
            str(value).startswith(before) and self.files.holds(folder, str(value).removeprefix(before))
            for folder, before in known.folders.items()
        )
        if not held:
            yield (
                f"{named} names {shown(value)}, and the model has no such file in "
                f"{' or '.join(sorted(known.folders))}"
            )


def model_files(workflow: Workflow, packages: Mapping[str, Package], files: Files) -> dict[str, list[str]]:
    """Return the nodes that name files of the model, each with what they name."""
    check = {name: known for each in packages.values() for name, known in each.classes.items()}
    found = {}
    for node in workflow.nodes.values():
        named = [
            str(value)
            for name, value in node.values.items()
            if (known := check[node.class_type].input(name)) and _names_file(known, value, files)
        ]
        if named:
            found[node.id] = [PurePosixPath(each).name for each in named]
    return found


def _names_file(known: Input, value: Any, files: Files) -> bool:
    if known.folders and "input" not in known.folders:
        return value not in known.choices
    return isinstance(value, str) and bool(_MODEL_FILE.search(value)) and files.named(value)
