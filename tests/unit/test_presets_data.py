"""The facts in variants/presets/: what holds of every preset that is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podkiln.config import catalog, node_definitions, presets, workflow
from podkiln.config.workflow import Files
from worker import presets as filling
from worker import request
from worker.presets import Presets

MODELS = catalog.load()
PACKAGES = node_definitions.load()
SHIPPED = presets.load()
PNG = "iVBORw0KGgo="

each_preset = pytest.mark.parametrize("name", SHIPPED)


def made(name: str) -> filling.Preset:
    """Return a preset as an image with all custom nodes has it."""
    nodes = {node for each in SHIPPED[name].preset.inputs.values() for node in each.nodes}
    return filling.Preset.from_json(presets.row(SHIPPED[name], MODELS, nodes), presets.data(name))


def test_every_example_workflow_has_a_preset() -> None:
    assert sorted(each.preset.workflow for each in SHIPPED.values()) == sorted(workflow.names())


def test_no_preset_has_a_problem() -> None:
    assert presets.problems() == []


@each_preset
def test_what_must_be_said_is_enough(name: str) -> None:
    """A request with the least that a preset asks for gives a workflow that ComfyUI takes."""
    preset, entry = made(name), SHIPPED[name]
    least: dict[str, Any] = {
        field: PNG if each.type == "image" else "aGk=" if each.type == "video" else "x"
        for field, each in preset.inputs.items()
        if each.required
    }
    known = Presets({name: preset}, run=Path("/nonexistent"))
    asked = request.parse({"preset": name, **least}, known=known)
    model = MODELS[name].model
    files = Files.of(*(MODELS[each].model for each in (*entry.models, *model.example_with)))
    nodes = workflow.of(name, asked.nodes, entry.source.path)
    assert workflow.problems(nodes, PACKAGES, model, files) == []


@each_preset
def test_its_example_is_a_request_for_it(name: str) -> None:
    preset = made(name)
    known = Presets({name: preset}, run=Path("/nonexistent"))
    said = filling.example(preset)["input"]
    assert request.parse(said, known=known).said["preset"] == name
    assert set(said) - {"preset"} <= set(filling.schema(preset)["properties"])


@each_preset
def test_its_words_are_for_people(name: str) -> None:
    described = SHIPPED[name].preset
    assert described.summary.endswith(".")
    assert all(each.description or key in WITHOUT_WORDS for key, each in described.inputs.items())


WITHOUT_WORDS = {"width", "height", "steps", "cfg", "guidance", "sampler", "fps", "zoom", "camera_path"}
WITHOUT_WORDS |= {"blur_strength", "longest_side", "image", "pose_strength", "prompt"}
