"""The form that ComfyUI's page edits: it says what the API form says, and nothing lies over anything."""

from __future__ import annotations

import itertools
import json
from typing import Any

from podkiln.config import catalog, node_definitions, workflow
from podkiln.config.editor_form import GROUPS

MODELS = catalog.load()
CLASSES = {
    name: each for package in node_definitions.load().values() for name, each in package.classes.items()
}

NAMES = workflow.names()


def form(name: str) -> dict[str, Any]:
    return dict(json.loads((workflow.FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def api_of(data: dict[str, Any]) -> dict[str, Any]:
    """Return the API form of an editor form, as the page makes it (graphToPrompt)."""
    links = {row[0]: [str(row[1]), row[2]] for row in data["links"]}
    found = {}
    for node in data["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        values = iter(node["widgets_values"])
        inputs = {}
        for known, slot in zip(CLASSES[node["type"]].inputs, node["inputs"], strict=True):
            assert known.name == slot["name"]
            if known.widget:
                inputs[known.name] = next(values)
                assert not known.control or next(values) == "randomize"
                assert not known.upload or next(values) == "image"
            if slot["link"]:
                inputs[known.name] = links[slot["link"]]
        assert list(values) == []
        found[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return found


def test_it_says_what_the_api_form_says() -> None:
    for name in NAMES:
        api = json.loads(workflow.path_of(name).read_text(encoding="utf-8"))
        for node in api.values():
            node.pop("_meta", None)
        assert api_of(form(name)) == api


def test_links_are_known_at_both_ends() -> None:
    for name in NAMES:
        data = form(name)
        nodes = {node["id"]: node for node in data["nodes"]}
        for number, source, output, target, slot, kind in data["links"]:
            assert number in nodes[source]["outputs"][output]["links"]
            assert nodes[target]["inputs"][slot]["link"] == number
            assert nodes[source]["outputs"][output]["type"] == kind


def test_nothing_lies_over_anything_and_each_node_in_one_group() -> None:
    for name in NAMES:
        data = form(name)
        boxes = [(*node["pos"], *node["size"]) for node in data["nodes"]]
        for (x, y, wide, high), (x2, y2, wide2, high2) in itertools.combinations(boxes, 2):
            assert x + wide <= x2 or x2 + wide2 <= x or y + high <= y2 or y2 + high2 <= y
        groups = [group["bounding"] for group in data["groups"]]
        note = data["nodes"][-1]
        for x, y, wide, high in boxes[:-1]:
            inside = [
                b
                for b in groups
                if b[0] < x and b[1] < y and x + wide < b[0] + b[2] and y + high < b[1] + b[3]
            ]
            assert len(inside) == 1
        assert {group["title"] for group in data["groups"]} <= set(GROUPS)
        assert note["pos"][0] + note["size"][0] < min(box[0] for box in groups)


def test_the_note_says_what_the_model_is_and_may_be_used_for() -> None:
    for name in NAMES:
        (text,) = form(name)["nodes"][-1]["widgets_values"]
        model = MODELS[name].model
        for said in (
            model.title,
            model.summary,
            model.licence.id,
            f"{MODELS[name].env}=true",
            "**What to change**",
        ):
            assert said in text
        assert "**What to change**: ." not in text
