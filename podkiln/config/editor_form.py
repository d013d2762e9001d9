"""A workflow as ComfyUI's page edits it, made from its API form: places, sizes, widgets, groups, a note.

The form is version 0.4 of https://docs.comfy.org/specs/workflow_json. Nodes stand in four groups, from left
to right: what is loaded, what a person changes, the steps, and the result; within a group, the later a node
comes in the graph, the further right it stands.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from podkiln.config.node_definitions import COMBO, COMFYUI, DYNAMIC
from podkiln.config.workflow import order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podkiln.config.catalog import Entry
    from podkiln.config.node_definitions import Input, NodeClass, Package
    from podkiln.config.workflow import Node, Workflow

LOADED, CHANGED, STEPS, RESULT = GROUPS = ("Model", "What to change", "Steps", "Result")
_COLOURS: Final = {LOADED: "#3f789e", CHANGED: "#8A8", STEPS: "#b58b2a", RESULT: "#a1309b"}
_WIDTH, _TEXT_WIDTH = 320, 420
_TITLE, _ROW, _TEXT, _PREVIEW = 40, 26, 180, 260  # heights in pixels
_GAP, _COLUMN_GAP, _GROUP_GAP = 50, 60, 80
_PER_COLUMN: Final = 1100
_NOTE: Final = (420, 420)
_PICTURES: Final = {"IMAGE", "VIDEO"}


@dataclass
class _Placed:
    """A node that is to be placed."""

    node: Node
    known: NodeClass
    depth: int
    group: str
    width: int
    height: int
    at: tuple[int, int] = (0, 0)


@dataclass
class _Links:
    """The links of a workflow, numbered in the order of the nodes that take them."""

    rows: list[list[Any]] = field(default_factory=list)
    taken: dict[tuple[str, str], int] = field(default_factory=dict)
    given: dict[tuple[str, int], list[int]] = field(default_factory=dict)


def text(workflow: Workflow, packages: Mapping[str, Package], entry: Entry, loaders: set[str]) -> str:
    """Return the editor form of a workflow in which `problems` found none.

    Args:
        workflow: The API form.
        packages: All definitions, by package.
        entry: The model that it is for: the note says what it is and what it asks for.
        loaders: The ids of the nodes that name the model's files.
    """
    classes = {name: known for each in packages.values() for name, known in each.classes.items()}
    placed = _placed(workflow, classes, loaders)
    boxes = _lay_out(placed)
    links = _links(workflow, classes)
    nodes = [_node(each, number, links, packages) for number, each in enumerate(placed.values())]
    last = max(int(key) for key in workflow.nodes)
    note = _note(entry, placed, last + 1)
    form = {
        "id": workflow.model,
        "revision": 0,
        "last_node_id": last + 1,
        "last_link_id": len(links.rows),
        "nodes": [*nodes, note],
        "links": links.rows,
        "groups": [_group(number, *box) for number, box in enumerate(boxes, start=1)],
        "config": {},
        "extra": {"ds": {"scale": 0.6, "offset": [_NOTE[0] + 120, 80]}},
        "version": 0.4,
    }
    return json.dumps(form, indent=1, ensure_ascii=False) + "\n"


def _placed(workflow: Workflow, classes: Mapping[str, NodeClass], loaders: set[str]) -> dict[str, _Placed]:
    depths = _depths(workflow)
    groups = _groups(workflow, classes, loaders, depths)
    return {
        key: _Placed(node, classes[node.class_type], depths[key], groups[key], *_size(node, classes))
        for key, node in workflow.nodes.items()
    }


def _depths(workflow: Workflow) -> dict[str, int]:
    """Return how many nodes come before each, at most."""
    depths: dict[str, int] = {}
    for key in order(workflow):
        depths[key] = max((depths[each.node] + 1 for each in workflow.nodes[key].links.values()), default=0)
    return depths


def _groups(
    workflow: Workflow, classes: Mapping[str, NodeClass], loaders: set[str], depths: Mapping[str, int]
) -> dict[str, str]:
    users: dict[str, set[str]] = {key: set() for key in workflow.nodes}
    for key, node in workflow.nodes.items():
        for link in node.links.values():
            users[link.node].add(key)
    found: dict[str, str] = {}
    for key in sorted(workflow.nodes, key=lambda key: depths[key]):
        node, known = workflow.nodes[key], classes[workflow.nodes[key].class_type]
        if key in loaders or (node.links and all(found[each.node] == LOADED for each in node.links.values())):
            found[key] = LOADED
        elif _asks(known) or not node.links:
            found[key] = CHANGED
        else:
            found[key] = STEPS
        if found[key] == LOADED and key not in loaders and _asks(known):
            found[key] = CHANGED
    for key in sorted(workflow.nodes, key=lambda key: -depths[key]):
        known = classes[workflow.nodes[key].class_type]
        shown = _PICTURES & {kind for kind, _ in known.outputs} and not any(
            each.control for each in known.inputs
        )
        if known.ends or (
            found[key] == STEPS and shown and users[key] and all(found[each] == RESULT for each in users[key])
        ):
            found[key] = RESULT
    return found


def _asks(known: NodeClass) -> bool:
    """Tell whether a person is meant to write or upload something on a node, and it takes no steps itself."""
    return any((each.multiline and each.widget) or each.upload for each in known.inputs) and not any(
        each.control for each in known.inputs
    )


def _size(node: Node, classes: Mapping[str, NodeClass]) -> tuple[int, int]:
    known = classes[node.class_type]
    sockets = sum(not each.widget for each in known.inputs)
    widgets = [each for each in known.inputs if each.widget and each.name not in node.links]
    texts = sum(each.multiline for each in widgets)
    rows = max(sockets, len(known.outputs)) + len(widgets) - texts + sum(each.control for each in widgets)
    preview = known.ends or any(each.upload for each in widgets)
    height = _TITLE + rows * _ROW + texts * _TEXT + (_PREVIEW if preview else 0)
    return (_TEXT_WIDTH if texts else _WIDTH), height


def _lay_out(placed: Mapping[str, _Placed]) -> list[tuple[str, int, int, int, int]]:
    """Place the nodes; return each group's title and box (x, y, width, height)."""
    boxes = []
    left = 0
    for group in GROUPS:
        members = [each for each in placed.values() if each.group == group]
        right = bottom = 0
        at = left
        for column in _columns(members):
            down = 0
            for each in column:
                each.at = (at, down)
                down += each.height + _GAP
            at += max(each.width for each in column) + _COLUMN_GAP
            right, bottom = at - _COLUMN_GAP, max(bottom, down - _GAP)
        if members:
            boxes.append((group, left - 20, -80, right - left + 40, bottom + 110))
            left = right + _GROUP_GAP
    return boxes


def _columns(members: list[_Placed]) -> list[list[_Placed]]:
    """Divide a group's nodes into columns: by depth, and no higher than a screen is."""
    columns: list[list[_Placed]] = []
    for depth in sorted({each.depth for each in members}):
        height = 0
        for each in (each for each in members if each.depth == depth):
            if not height or height + each.height > _PER_COLUMN:
                columns.append([])
                height = 0
            columns[-1].append(each)
            height += each.height + _GAP
    return columns


def _links(workflow: Workflow, classes: Mapping[str, NodeClass]) -> _Links:
    links = _Links()
    for key, node in workflow.nodes.items():
        for slot, known in enumerate(classes[node.class_type].inputs):
            if link := node.links.get(known.name):
                number = len(links.rows) + 1
                kind = classes[workflow.nodes[link.node].class_type].outputs[link.slot][0]
                links.rows.append([number, int(link.node), link.slot, int(key), slot, kind])
                links.taken[key, known.name] = number
                links.given.setdefault((link.node, link.slot), []).append(number)
    return links


def _node(each: _Placed, order: int, links: _Links, packages: Mapping[str, Package]) -> dict[str, Any]:
    node, known = each.node, each.known
    outputs = [
        {"name": name, "type": kind, "links": links.given.get((node.id, slot))}
        for slot, (kind, name) in enumerate(known.outputs)
    ]
    title = {"title": node.title} if node.title else {}
    core = known.package == COMFYUI
    return {
        "id": int(node.id),
        "type": node.class_type,
        **title,
        "pos": list(each.at),
        "size": [each.width, each.height],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [_slot(node, one, links) for one in known.inputs],
        "outputs": outputs,
        "properties": {
            "Node name for S&R": node.class_type,
            "cnr_id": "comfy-core" if core else known.package,
            "ver": packages[known.package].version,
        },
        "widgets_values": _widgets(node, known),
    }


def _slot(node: Node, known: Input, links: _Links) -> dict[str, Any]:
    kind = COMBO if known.type == DYNAMIC else known.type
    shape = {"shape": 7} if known.optional else {}  # litegraph's hollow circle: it may stay empty
    widget = {"widget": {"name": known.name}} if known.widget else {}
    return {
        "name": known.name,
        "type": kind,
        **shape,
        **widget,
        "link": links.taken.get((node.id, known.name)),
    }


def _widgets(node: Node, known: NodeClass) -> list[Any]:
    """Return the values of a node's widgets in the page's order; those of links stay as they are."""
    values: list[Any] = []
    for each in known.inputs:
        if each.widget:
            values.append(node.values.get(each.name, _below_a_link(each)))
        if each.control:
            values.append("randomize")
        if each.upload:
            values.append("image")  # what the page keeps for the button
    return values


def _below_a_link(known: Input) -> Any:
    """Return what a widget holds whose value comes over a link."""
    if known.choices:
        return known.choices[0]
    least = known.min or 0
    return {"INT": int(least), "FLOAT": float(least), "BOOLEAN": False}.get(known.type, "")


def _group(number: int, title: str, *box: int) -> dict[str, Any]:
    return {
        "id": number,
        "title": title,
        "bounding": list(box),
        "color": _COLOURS[title],
        "font_size": 24,
        "flags": {},
    }


def _note(entry: Entry, placed: Mapping[str, _Placed], number: int) -> dict[str, Any]:
    """Return a note that says what the model is, what it may be used for and what to change."""
    model = entry.model
    changed = [each.node.title or each.node.class_type for each in placed.values() if each.group == CHANGED]
    licence = f"{model.licence.id}. {model.licence.note or ''}".strip()
    needs = f"{model.needs.vram_gb:g} GB of VRAM, {model.needs.ram_gb:g} GB of RAM"
    lines = [
        f"# {model.title}",
        model.summary,
        f"**Licence**: {licence}",
        f"**Needs**: {needs} at the least.",
        f"**Files**: a pod fetches them with `{entry.env}=true`.",
        "**What to change**: " + "; ".join(dict.fromkeys(changed)) + ".",
        *(f"- {' '.join(note.split())}" for note in model.notes),
    ]
    if model.homepage:
        lines.append(f"[{model.homepage.removeprefix('https://')}]({model.homepage})")
    return {
        "id": number,
        "type": "MarkdownNote",
        "title": model.title,
        "pos": [-_NOTE[0] - 60, 0],
        "size": list(_NOTE),
        "flags": {},
        "order": len(placed),
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": ["\n\n".join(lines)],
        "color": "#432",
        "bgcolor": "#653",
    }
