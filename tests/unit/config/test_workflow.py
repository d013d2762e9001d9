"""What is wrong with a workflow is said in one sentence, with its name, the node and the class."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from podkiln.config import catalog, node_definitions, workflow
from podkiln.config.workflow import Files
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = node_definitions.load()
MODEL = catalog.load()["sdxl-base"].model
GOOD = json.loads(workflow.path_of("sdxl-base").read_text(encoding="utf-8"))
CHECKPOINT, PROMPT, SAMPLER, SAVE = "1", "2", "5", "7"


def checked(data: dict[str, Any], folder: Path) -> list[str]:
    """Return the problems of a workflow that is for sdxl-base."""
    workflow.path_of("mine", folder).write_text(json.dumps(data), encoding="utf-8")
    return workflow.problems(workflow.load("mine", folder), PACKAGES, MODEL, Files.of(MODEL))


def test_a_good_one_has_no_problem(tmp_path: Path) -> None:
    assert checked(GOOD, tmp_path) == []


@pytest.mark.parametrize(
    ("node", "key", "value", "said"),
    [
        (
            SAMPLER,
            "class_type",
            "KSamplr",
            "node 5 (KSamplr): there is no such class. Did you mean 'KSampler'?",
        ),
        (
            SAMPLER,
            "class_type",
            "WanVideoEmptyEmbeds",
            "(WanVideoEmptyEmbeds): it comes with node:wanvideowrapper, which the model does not require",
        ),
        (SAMPLER, "inputs.stepz", 3, "it has no input 'stepz'. Did you mean 'steps'?"),
        (SAMPLER, "inputs.steps", None, "its input 'steps' is missing"),
        (SAMPLER, "inputs.steps", 0, "its input 'steps' is 0, and goes from 1 to 10000"),
        (SAMPLER, "inputs.steps", "20", "its input 'steps' is no INT ('20')"),
        (SAMPLER, "inputs.sampler_name", "eular", "'sampler_name' cannot be 'eular'. Did you mean 'euler'?"),
        (
            SAMPLER,
            "inputs.positive",
            "a fox",
            "its input 'positive' is a CONDITIONING, which comes over a link",
        ),
        (SAMPLER, "inputs.positive", ["1", 0], "'positive' is a CONDITIONING, and node 1 gives a MODEL"),
        (
            SAMPLER,
            "inputs.positive",
            ["9", 0],
            "its input 'positive' is linked to node 9, which is not there",
        ),
        (SAMPLER, "inputs.positive", ["2", 4], "is linked to output 4 of node 2, which has none"),
        (
            CHECKPOINT,
            "inputs.ckpt_name",
            "other.safetensors",
            "names 'other.safetensors', and the model has no such file in checkpoints",
        ),
        (
            PROMPT,
            "inputs.text",
            "lora.safetensors",
            "names the file 'lora.safetensors', which the model does not",
        ),
        (SAVE, "class_type", "VAEDecode", "no node of it saves or shows anything"),
    ],
)
def test_a_fault_is_said_where_it_is(node: str, key: str, value: Any, said: str, tmp_path: Path) -> None:
    data = copy.deepcopy(GOOD)
    inside, _, name = key.rpartition(".")
    place = data[node]["inputs"] if inside else data[node]
    if value is None:
        del place[name]
    else:
        place[name] = value
    found = checked(data, tmp_path)
    assert any(said in line for line in found), found
    assert all(line.startswith("mine.api.json: ") and line.endswith((".", "?")) for line in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "this is no JSON"),
        ("[]", "this is no workflow in the API form"),
        ('{"nodes": [], "links": []}', "this is no workflow in the API form"),
        ('{"a": {"class_type": "KSampler"}}', "the id of a node is a number (it is 'a')"),
        ('{"1": {"class_type": "A", "inputs": ["x"]}}', "node 1: inputs is no mapping (it is ['x'])"),
        ('{"1": {"class_type": "A", "_meta": null}}', "node 1: _meta is no mapping (it is null)"),
    ],
)
def test_what_is_no_workflow_is_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    workflow.path_of("mine", tmp_path).write_text(text)
    with pytest.raises(DescriptionError) as told:
        workflow.load("mine", tmp_path)
    assert said in str(told.value)


def test_a_circle_is_said(tmp_path: Path) -> None:
    data = copy.deepcopy(GOOD)
    data["8"] = {"class_type": "ConditioningConcat", "inputs": {}}
    data["9"] = copy.deepcopy(data["8"])
    for one, other in (("8", "9"), ("9", "8")):
        data[one]["inputs"] = {"conditioning_to": [PROMPT, 0], "conditioning_from": [other, 0]}
    (said,) = checked(data, tmp_path)
    assert re.fullmatch(r"mine\.api\.json: the nodes (8 and 9|9 and 8) are linked in a circle\.", said)


def test_a_folder_counts_as_a_file_where_a_list_is_of_folders() -> None:
    files = Files(frozenset({"diffusers/FLUX.1-dev/vae/config.json"}))
    assert files.holds("diffusers", "FLUX.1-dev")
    assert not files.holds("diffusers", "FLUX.1")
