"""A workflow in ComfyUI's API format: read, and filled in. Pure.

Format: an object of nodes by id, each with `class_type` and `inputs`; an input is a value, or a link
[node id, number of the output]. Source: validate_prompt in execution.py of ComfyUI 0.33.0.
"""

from __future__ import annotations

import copy
import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy.failure import USAGE, WORKFLOW_UNREADABLE, ComfyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

IMAGE_NODES = ("LoadImage", "LoadImageMask", "LoadImageOutput")
IMAGE_INPUT = "image"

Nodes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Target:
    """An input of a node."""

    node: str
    input: str

    def __str__(self) -> str:
        return f"{self.node}.{self.input}"


def parse(data: bytes, name: str) -> Nodes:
    """Read a workflow; `name` is for messages. Raises ComfyError."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ComfyError(
            f"{name} is no JSON: give the file that ComfyUI's Export (API) saves.", WORKFLOW_UNREADABLE
        ) from None
    if isinstance(value, dict) and isinstance(value.get("prompt"), dict):
        value = value["prompt"]  # what is sent to /prompt, saved whole
    if isinstance(value, dict) and isinstance(value.get("nodes"), list):
        raise ComfyError(
            f"{name} is saved for the editor, which ComfyUI itself cannot run: save it with Export (API).",
            WORKFLOW_UNREADABLE,
        )
    if not isinstance(value, dict) or not value:
        raise ComfyError(f"{name} holds no nodes: save it with Export (API).", WORKFLOW_UNREADABLE)
    for number, node in value.items():
        if not _is_node(node):
            raise ComfyError(
                f"{name}: node {number} has no class_type and inputs: save it with Export (API).",
                WORKFLOW_UNREADABLE,
            )
    return dict(value)


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
        raise ComfyError(f"{option} {text!r} is not NODE.INPUT=VALUE, such as 3.seed=42.", USAGE)
    target = _target(nodes, node, name, option)
    try:
        return target, json.loads(value)
    except ValueError:
        return target, value


def places(nodes: Nodes, given: Sequence[str], option: str) -> list[tuple[Target, str]]:
    """Tell which input each image goes to: `FILE|URL`, `NODE=FILE|URL` or `NODE.INPUT=FILE|URL`.

    Images without a node go to the nodes that load images, in the order of their ids. Raises ComfyError.
    """
    named = [_named(nodes, text, option) for text in given]
    taken = {target for target, _ in named if target}
    free = iter([target for target in _loaders(nodes) if target not in taken])
    found = []
    for target, source in named:
        place = target or next(free, None)
        if place is None:
            raise ComfyError(
                f"{option} {source}: no node that loads an image is left for it (of {len(_loaders(nodes))}): "
                "name the input as NODE.INPUT=FILE.",
                USAGE,
            )
        found.append((place, source))
    return found


def title(nodes: Nodes, number: str) -> str:
    """Return what a node is called in messages: its id, and the title it has in the editor, or its class."""
    node = nodes.get(number, {})
    name = (node.get("_meta") or {}).get("title") or node.get("class_type")
    return f"{number} ({name})" if name else number


def _is_node(node: object) -> bool:
    if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
        return False
    return isinstance(node.get("inputs"), dict) and isinstance(node.get("_meta") or {}, dict)


def _named(nodes: Nodes, text: str, option: str) -> tuple[Target | None, str]:
    place, equals, source = text.partition("=")
    if not equals or place.startswith(("http://", "https://", "/", "./")):
        return None, text
    node, _, name = place.rpartition(".") if place not in _names(nodes) else (place, "", IMAGE_INPUT)
    if not source or not node:
        raise ComfyError(f"{option} {text!r} is not FILE, NODE=FILE or NODE.INPUT=FILE.", USAGE)
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
        raise ComfyError(f"{option}: the workflow has no node {node!r}{_near(node, names)}.", USAGE)
    if len(meant) > 1:
        raise ComfyError(f"{option}: {node!r} is {', '.join(meant)}: name one by its number.", USAGE)
    inputs = nodes[meant[0]]["inputs"]
    if name not in inputs:
        raise ComfyError(
            f"{option}: node {title(nodes, meant[0])} has no input {name!r}{_near(name, inputs)}.", USAGE
        )
    return Target(meant[0], name)


def _near(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), 1)
    return f"; did you mean {near[0]}" if near else f"; there are {', '.join(words) or 'none'}"
