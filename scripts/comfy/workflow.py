"""A workflow in ComfyUI's API format: read, and filled in. Pure.

Format: an object of nodes by id, each with `class_type` and `inputs`; an input is a value, or a link
[node id, number of the output]. Source: validate_prompt in execution.py of ComfyUI 0.33.0.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from comfy.failure import USAGE, WORKFLOW_UNREADABLE, ComfyError
from pod.util.env import nearest
from pod.util.printable import printable, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

IMAGE_NODES = ("LoadImage", "LoadImageMask", "LoadImageOutput")
IMAGE_INPUT = "image"
# ComfyUI's SaveImageWebsocket, ETN_SendImageWebSocket of comfyui-tooling-nodes and others that are called so.
_BY_WEBSOCKET = re.compile(r"(?:save|send|output|to)\w*websocket", re.IGNORECASE)
# What other tools write beside the nodes, and ComfyUI does not need.
_BESIDE = frozenset({"version", "extra", "extra_data", "client_id"})
_ENVELOPES = 4  # that a workflow may lie in
_LONGEST_TITLE = 120  # characters
_LONGEST_PLACE = 1000
_MOST_NAMES = 500

Nodes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Target:
    """An input of a node."""

    node: str
    input: str

    def __str__(self) -> str:
        return f"{self.node}.{self.input}"


@dataclass(frozen=True)
class Named:
    """A picture that comes with a workflow, by the name that it has there: a data: URI or an address."""

    name: str
    source: str = field(repr=False)


@dataclass(frozen=True)
class Workflow:
    """A workflow, and the pictures that came with it."""

    nodes: Nodes
    pictures: tuple[Named, ...] = ()


def parse(data: bytes, name: str) -> Workflow:
    """Read a workflow; `name` is for messages. Raises ComfyError.

    It may lie in what is sent to ComfyUI, {"prompt": …}, or to a serverless worker with pictures beside it,
    {"input": {"workflow": …, "images": […]}} (handler.py of runpod-workers/worker-comfyui).
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ComfyError(
            f"{name} is not JSON: give the file that ComfyUI's Export (API) saves.", WORKFLOW_UNREADABLE
        ) from None
    pictures: list[Named] = []
    for _ in range(_ENVELOPES):
        if not isinstance(value, dict):
            break
        pictures += _named_pictures(value.get("images"), name)
        inner = next(
            (value[key] for key in ("input", "workflow", "prompt") if _is_envelope(value, key)), None
        )
        if inner is None:
            break
        value = inner
    if isinstance(value, dict) and isinstance(value.get("nodes"), list):
        raise ComfyError(
            f"{name} is saved for the editor, which ComfyUI itself cannot run: save it with Export (API).",
            WORKFLOW_UNREADABLE,
        )
    if isinstance(value, dict):
        value = {key: each for key, each in value.items() if key not in _BESIDE or _is_node(each)}
    if not isinstance(value, dict) or not value:
        raise ComfyError(f"{name} holds no nodes: save it with Export (API).", WORKFLOW_UNREADABLE)
    for number, node in value.items():
        if not _is_node(node):
            raise ComfyError(
                f"{name}: node {shown(number, 40)} has no class_type and inputs: save it with Export (API).",
                WORKFLOW_UNREADABLE,
            )
    return Workflow(dict(value), tuple(pictures))


def _is_envelope(value: dict[str, Any], key: str) -> bool:
    """Tell whether the workflow lies one level deeper: a node may be called so too."""
    return isinstance(value.get(key), dict) and not _is_node(value[key])


def _named_pictures(images: object, name: str) -> list[Named]:
    """Read the pictures of a worker's request. Raises ComfyError."""
    found = []
    for image in images if isinstance(images, list) else ():
        called, content = (image.get("name"), image.get("image")) if isinstance(image, dict) else (None, None)
        if not isinstance(called, str) or not called or not isinstance(content, str):
            raise ComfyError(f"{name}: an entry of images has no name and image.", WORKFLOW_UNREADABLE)
        addressed = content.lower().startswith(("data:", "http://", "https://"))
        found.append(Named(called, content if addressed else f"data:;base64,{content}"))
    return found


def renamed(nodes: Nodes, names: Mapping[str, str]) -> Nodes:
    """Return the workflow with other names of files in the nodes that load them."""
    changed = copy.deepcopy(nodes)
    for node in changed.values():
        for key, value in node["inputs"].items():
            if (
                isinstance(value, str)
                and value in names
                and ("load" in node["class_type"].lower() or key == IMAGE_INPUT)
            ):
                node["inputs"][key] = names[value]
    return changed


def pictured(nodes: Nodes) -> frozenset[str]:
    """Return the nodes whose pictures come by the websocket alone: SaveImageWebsocket and its like."""
    return frozenset(number for number, node in nodes.items() if _BY_WEBSOCKET.search(node["class_type"]))


def with_values(nodes: Nodes, values: Mapping[Target, Any]) -> Nodes:
    """Return the workflow with inputs set."""
    changed = copy.deepcopy(nodes)
    for target, value in values.items():
        changed[target.node]["inputs"][target.input] = value
    return changed


def assignment(nodes: Nodes, text: str, option: str) -> tuple[Target, Any]:
    """Read `NODE.INPUT=VALUE`; VALUE is JSON where it can be, else the text itself. Raises ComfyError."""
    place, equals, value = text.partition("=")
    node, dot, name = place.rpartition(".")
    if not (equals and dot and node and name):
        raise ComfyError(f"{option} {shown(text)!r} is not NODE.INPUT=VALUE, such as 3.seed=42.", USAGE)
    target = _target(nodes, node, name, option)
    try:
        return target, json.loads(value)
    except (ValueError, RecursionError):
        return target, value


def places(
    nodes: Nodes, given: Sequence[str], option: str, exists: Callable[[str], bool] = lambda _: False
) -> list[tuple[Target, str]]:
    """Tell which input each image goes to: `FILE|URL`, `NODE=FILE|URL` or `NODE.INPUT=FILE|URL`.

    Images without a node go to the nodes that load images, in the order of their ids. `exists` tells whether
    there is a file of a name: what stands before a `=` may be part of one. Raises ComfyError.
    """
    named = [_named(nodes, text, option, exists) for text in given]
    taken = {target for target, _ in named if target}
    free = iter([target for target in _loaders(nodes) if target not in taken])
    found = []
    for target, source in named:
        place = target or next(free, None)
        if place is None:
            raise ComfyError(
                f"{option} {shown(source)}: no node that loads an image is left for it "
                f"(of {len(_loaders(nodes))}): name the input as NODE.INPUT=FILE.",
                USAGE,
            )
        found.append((place, source))
    return found


def refuse_doubles(targets: Sequence[Target]) -> None:
    """Raise ComfyError for an input that two options give a value to."""
    if double := next((each for each in targets if targets.count(each) > 1), None):
        raise ComfyError(f"{shown(double)} is given twice by --image or --set: give it once.", USAGE)


def title(nodes: Nodes, number: str) -> str:
    """Return what a node is called in messages: its id, and the title it has in the editor, or its class."""
    node = nodes.get(number, {})
    name = (node.get("_meta") or {}).get("title") or node.get("class_type")
    return printable(f"{number} ({name})" if name else number, _LONGEST_TITLE)


def _is_node(node: object) -> bool:
    if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
        return False
    return isinstance(node.get("inputs"), dict) and isinstance(node.get("_meta") or {}, dict)


def _named(nodes: Nodes, text: str, option: str, exists: Callable[[str], bool]) -> tuple[Target | None, str]:
    if "=" not in text or text.lower().startswith(("http://", "https://", "data:", "/", "./", "../", "~")):
        return None, text
    # Titles and names of files may hold a `=` too: the first that a node's name stands before is meant.
    names = _names(nodes)
    cuts = [at for at, letter in enumerate(text[:_LONGEST_PLACE]) if letter == "="]
    for at in cuts:
        if text[:at] in names:
            return _place(nodes, text[:at], IMAGE_INPUT, text[at + 1 :], text, option)
        node, dot, name = text[:at].rpartition(".")
        if dot and node in names and not exists(text):
            return _place(nodes, node, name, text[at + 1 :], text, option)
    if exists(text):
        return None, text
    node, dot, name = text[: cuts[0]].rpartition(".") if cuts else ("", "", "")
    return _place(nodes, node, name, text[cuts[0] + 1 :] if cuts else "", text, option)


def _place(nodes: Nodes, node: str, name: str, source: str, text: str, option: str) -> tuple[Target, str]:
    if not source or not node:
        raise ComfyError(f"{option} {shown(text)!r} is not FILE, NODE=FILE or NODE.INPUT=FILE.", USAGE)
    return _target(nodes, node, name, option), source


def _loaders(nodes: Nodes) -> list[Target]:
    loading = [number for number, node in nodes.items() if node["class_type"] in IMAGE_NODES]
    return [Target(number, IMAGE_INPUT) for number in sorted(loading, key=_numerically)]


def _numerically(number: str) -> tuple[int, str]:
    return (int(number), "") if number.isascii() and number.isdigit() else (1 << 62, number)


def _names(nodes: Nodes) -> dict[str, list[str]]:
    """Return the nodes that each name means: an id, a title, or a class."""
    found: dict[str, list[str]] = {}
    for number, node in nodes.items():
        for name in {(node.get("_meta") or {}).get("title"), node["class_type"]} - {None, number}:
            found.setdefault(str(name), []).append(number)
    return {**found, **{number: [number] for number in nodes}}


def _target(nodes: Nodes, node: str, name: str, option: str) -> Target:
    names = _names(nodes)
    meant = names.get(node, [])
    if not meant:
        raise ComfyError(f"{option}: the workflow has no node {shown(node)!r}{_near(node, names)}.", USAGE)
    if len(meant) > 1:
        several = shown(", ".join(meant))
        raise ComfyError(f"{option}: {shown(node)!r} is {several}: name one by its number.", USAGE)
    inputs = nodes[meant[0]]["inputs"]
    if name not in inputs:
        raise ComfyError(
            f"{option}: node {title(nodes, meant[0])} has no input {shown(name)!r}{_near(name, inputs)}.",
            USAGE,
        )
    return Target(meant[0], name)


def _near(word: str, words: Iterable[str]) -> str:
    known = list(words)[:_MOST_NAMES]
    near = nearest(word[:_LONGEST_TITLE], known)
    return f"; did you mean {shown(near)}" if near else f"; there are {shown(', '.join(known)) or 'none'}"
