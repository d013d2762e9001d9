"""What is wrong with a preset, or with the one that a variant fixes: a sentence with file, line and key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from descriptions import variant, write

from podkiln.config import catalog, presets
from podkiln.config import variant as variants
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path

PRESET = """\
title: Mine
summary: For a test.
workflow: sdxl-base
inputs:
  prompt: {type: string, at: [2.text], required: true}
  seed: {type: integer, at: [5.seed], random: true, min: 0}
"""
SHIPPED = catalog.load()


def said(text: str, folder: Path) -> list[str]:
    """Return what is said of a preset; an error as the only sentence."""
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    try:
        return presets.problems(folder)
    except DescriptionError as wrong:
        return [str(wrong)]


def test_a_good_one_has_no_problem(tmp_path: Path) -> None:
    assert said(PRESET, tmp_path) == []


# What stands in the place of the seed, and what is said.
INPUTS = [
    ("x: {type: text, at: [5.seed]}", "mine.yaml:6: inputs.x.type: expected 'string', 'integer', 'number'"),
    ("x: {type: integer}", "mine.yaml:6: inputs.x.at: this key is missing"),
    ("x: {type: integer, at: [seed]}", "inputs.x.at[0]: expected NODE.INPUT of the workflow, such as 5.seed"),
    ("x: {type: integer, at: [5.seed, 5.seed]}", "inputs.x.at: '5.seed' is duplicated"),
    ("X: {type: integer, at: [5.seed]}", "inputs.X: expected a field's name of lower-case letters"),
    ("preset: {type: integer, at: [5.seed]}", "'preset' is a field of every request"),
    ("x: {type: string, at: [5.seed], min: 1}", "min belongs to integer and number, and this is"),
    ("x: {type: number, at: [5.cfg], random: true}", "random belongs to integer, and this is of type number"),
    ("x: {type: choice, at: [5.scheduler]}", "inputs.x: a choice needs the key choices"),
    ("x: {type: image, at: [1.ckpt_name]}", "an input of type image is required, or `adds`"),
    ("x: {type: integer, at: [5.steps], min: 9, max: 1}", "inputs.x: min 9 is more than max 1"),
    ("x: {type: string, at: [2.text], pattern: '('}", "pattern is no regular expression (missing )"),
    ("x: {type: string, at: [2.text], required: true, default: a}", "what is required has no default"),
    ("x: {type: integer, at: [5.seed], instead_of: [y]}", "x takes the place of 'y', which is no other"),
    ("x: {type: integer, at: [9.seed]}", "mine.yaml:6: inputs.x.at[0]: the workflow has no node 9."),
    ("x: {type: integer, at: [5.seeed]}", "KSampler has no input 'seeed'. Did you mean 'seed'?"),
    ("x: {type: string, at: [5.seed]}", "'seed' of KSampler is an INT, and this is of type string."),
    ("x: {type: image, at: [1.ckpt_name], required: true}", "'ckpt_name' of CheckpointLoaderSimple is"),
    ("x: {type: string, at: [5.positive]}", "'positive' of KSampler is a CONDITIONING, over a link."),
    ("x: {type: integer, at: [5.steps], max: 99999}", "'steps' is 99999, and goes from 1 to 10000."),
    ("x: {type: integer, at: [5.steps], max: 99999}", "mine.yaml, x 99999: sdxl-base.api.json: node 5"),
    ("x: {type: choice, at: [5.scheduler], choices: [karras, carras]}", "'scheduler' cannot be 'carras'."),
    ("x: {type: choice, at: [1.ckpt_name], choices: {a: b.ckpt}}", "names 'b.ckpt', and the model has"),
    ("x: {type: integer, at: [9.steps], adds: {'9': {class_type: Samplr, inputs: {steps: 1}}}}",
     "node 9 (Samplr): there is no such class."),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "what"), INPUTS)
def test_what_is_wrong_with_an_input_is_said(entry: str, what: str, tmp_path: Path) -> None:
    was = "seed: {type: integer, at: [5.seed], random: true, min: 0}"
    assert was in PRESET
    found = said(PRESET.replace(was, entry), tmp_path)
    assert any(what in each for each in found), found
    assert all("\n" not in each for each in found)


@pytest.mark.parametrize(
    ("was", "now", "what"),
    [
        (
            "workflow: sdxl-base",
            "workflow: sdxl-bas",
            "mine.yaml:3: workflow: there is no model 'sdxl-bas'.",
        ),
        ("workflow: sdxl-base", "workflow: scail-wan2gp", "'scail-wan2gp' has no example workflow."),
        ("inputs:", "models: [sdxl]\ninputs:", "mine.yaml:4: models[0]: there is no model 'sdxl'."),
        ("inputs:", "mood: good\ninputs:", "mine.yaml:4: mood: unknown key"),
        ("inputs:", "unused: {seed: because}\ninputs:", "'seed' is an input, so it is not unused"),
    ],
)
def test_what_is_wrong_with_the_rest_too(was: str, now: str, what: str, tmp_path: Path) -> None:
    (found,) = said(PRESET.replace(was, now), tmp_path)
    assert what in found


def test_the_files_name_is_the_presets(tmp_path: Path) -> None:
    (tmp_path / "Mine.yaml").write_text(PRESET)
    with pytest.raises(DescriptionError, match=r"Mine.yaml:1: the file's name is the preset's id"):
        presets.load(tmp_path)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ("preset: sdxl-bas\n", "preset: there is no preset 'sdxl-bas'. Did you mean 'sdxl-base'?"),
        ("preset: scail\n", "the preset 'scail' needs the model 'scail', which this variant does not offer."),
        ("preset: 7\n", "preset: expected"),
    ],
)
def test_the_preset_of_a_variant_can_be_served(more: str, what: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", variant(more))
    with pytest.raises(DescriptionError, match=rf"mine.yaml:\d+: .*{re.escape(what)}"):
        checked(path)


def checked(path: Path) -> None:
    described = variants.load(str(path))
    presets.check(described, catalog.offered(described, SHIPPED))


def test_one_that_can_is_in_the_images_data(tmp_path: Path) -> None:
    described = variants.load(str(write(tmp_path / "mine.yaml", variant("preset: sdxl-base\n"))))
    offered = catalog.offered(described, SHIPPED)
    presets.check(described, offered)
    data = presets.to_json(described, offered)
    assert (data["preset"], [each["id"] for each in data["presets"]]) == ("sdxl-base", ["sdxl-base"])
    assert presets.examples(described, offered)["sdxl-base"]["input"]["preset"] == "sdxl-base"


def test_a_model_that_an_image_cannot_run_has_no_preset_in_it() -> None:
    described = variants.load("lazy")
    offered = catalog.offered(described, SHIPPED)
    unmet = {each.id for each in offered if each.unmet}
    found = {each.preset.workflow for each in presets.offered(offered)}
    assert unmet
    assert not unmet & found
    assert {"scail", "sdxl-base", "wan21-t2v-14b"} <= found
