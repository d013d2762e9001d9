"""bench/own_workflows.py: what it makes is what the models need, and what it reads in ComfyUI's history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_kit import comfyui
from workflow_kit.small import FOLDERS, MODELS, SAMPLERS

VARIANTS = Path(__file__).resolve().parents[3] / "variants"
NODES = {"1": {"class_type": "Loader"}, "2": {"class_type": "KSampler"}, "3": {"class_type": "SaveImage"}}


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VARIANTS / f"workflows/{name}.api.json").read_text())
    return found


def model(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((VARIANTS / f"models/{name}.yaml").read_text())
    return found


@pytest.mark.parametrize("name", MODELS)
def test_it_sets_what_a_workflow_has(name: str) -> None:
    nodes = workflow(name)
    assert {node["class_type"] for node in nodes.values()} & SAMPLERS
    for place in MODELS[name].settings:
        number, key = place.split(".")
        assert key in nodes[number]["inputs"], place


@pytest.mark.parametrize("name", MODELS)
def test_it_makes_the_files_of_a_model_and_no_others(name: str) -> None:
    needed = [name, *model(name).get("example_with", [])]
    files = [each for part in needed for each in model(part)["files"] if not each.get("optional")]
    names = [each.get("name") or each["path"].rsplit("/", 1)[-1] for each in files]
    paths = {f"{each['folder']}/{name}" for each, name in zip(files, names, strict=True)}
    made = MODELS[name].files
    folders = tuple(f"{path}/" for path, kind in made.items() if kind in FOLDERS)
    assert {path for path in paths if not path.startswith(folders or "/")} == {
        path for path, kind in made.items() if kind not in FOLDERS
    }
    assert all(any(path.startswith(folder) for path in paths) for folder in folders)


@pytest.mark.parametrize(
    ("failed", "executed", "sampled"),
    [("1", [], ""), ("2", ["1"], "begun"), ("3", ["1", "2"], "done")],
)
def test_a_failure_says_how_far_the_sampler_came(failed: str, executed: list[str], sampled: str) -> None:
    data = {
        "node_id": failed, "node_type": NODES[failed]["class_type"], "executed": executed,
        "exception_type": "ValueError", "exception_message": "no\n such  thing",
    }  # fmt: skip
    history = {"status": {"status_str": "error", "messages": [["execution_error", data]]}}
    found = comfyui.read(history, NODES, 3)
    assert found.sampled == sampled
    assert (
        found.stopped
        == f"stopped in node {failed} ({NODES[failed]['class_type']}): ValueError: no such thing"
    )


def test_a_success_has_sampled() -> None:
    found = comfyui.read({"status": {"status_str": "success", "messages": []}}, NODES, 3)
    assert (found.sampled, found.stopped) == ("done", "")
