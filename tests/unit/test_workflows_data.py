"""The facts in variants/workflows/: what holds of every model's example workflow and of the definitions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from podkiln.config import catalog, document, node_definitions, workflow, workflows
from podkiln.config.variant import SHIPPED

if TYPE_CHECKING:
    from pathlib import Path

MODELS = catalog.load()
PACKAGES = node_definitions.load()
WITHOUT = {"scail-wan2gp"}  # another program runs it
# Their nodes know by themselves how the files are called.
NAMELESS = {"flashportrait", "infcam", "mvinverse"}
KILOBYTES = 300

each_workflow = pytest.mark.parametrize("name", workflow.names())


def test_every_model_that_comfyui_can_run_has_a_workflow() -> None:
    assert set(MODELS) - set(workflow.names()) == WITHOUT


def test_no_workflow_has_a_problem() -> None:
    assert workflows.problems() == []


def test_the_editor_forms_are_current() -> None:
    assert workflows.stale() == [], "run .venv/bin/python scripts/host/workflows.py"


@each_workflow
def test_a_workflow_needs_no_node_that_its_model_does_not_require(name: str) -> None:
    needed = {f"node:{each}" for each in workflow.packages_used(workflow.load(name), PACKAGES)}
    assert needed <= set(MODELS[name].model.requires)


@each_workflow
def test_a_workflow_names_what_comes_with_its_model(name: str) -> None:
    wanted = {file.filename for file in MODELS[name].model.wanted}
    files = workflow.Files.of(MODELS[name].model)
    named = workflow.model_files(workflow.load(name), PACKAGES, files)
    assert {file for each in named.values() for file in each} & wanted or name in NAMELESS


def test_the_definitions_are_of_what_is_pinned_and_small() -> None:
    """Of ComfyUI's release, and of each custom node that variants/nodes/ pins, or that lies here."""
    pinned = {node_definitions.COMFYUI: workflows.release()}
    pinned |= {
        path.stem: document.load(path).data.get("commit", "own")
        for path in (SHIPPED / "nodes").glob("*.yaml")
    }
    known = {name: package.version for name, package in PACKAGES.items() if name in pinned}
    assert known == {name: version for name, version in pinned.items() if name in PACKAGES}
    size = sum(path.stat().st_size for path in node_definitions.FOLDER.iterdir())
    assert size < KILOBYTES * 1000


def test_files_are_written_for_people_to_read() -> None:
    def pretty(path: Path) -> bool:
        text = path.read_text(encoding="utf-8")
        return text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"

    assert [name for name in workflow.names() if not pretty(workflow.path_of(name))] == []
