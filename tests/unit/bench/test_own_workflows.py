"""bench/own_workflows.py: what it makes is what the models need, and what it reads in ComfyUI's history."""

from __future__ import annotations

import argparse
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import own_workflows
import pytest
import yaml
from workflow_kit import comfyui
from workflow_kit.small import FOLDERS, MODELS, SAMPLERS, Small

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_a_comfyui_that_is_killed_while_it_is_asked_is_the_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed:
        returncode: int | None = None

        def poll(self) -> int | None:
            return self.returncode

    process = Killed()

    @contextmanager
    def started(*_: object) -> Iterator[tuple[Killed, int]]:
        (tmp_path / "a.log").write_text("Killed\n")
        yield process, 1

    def ask(_port: int, path: str, _body: object = None) -> Any:
        if path != "/prompt":
            process.returncode = -9
            raise ConnectionResetError
        return {"prompt_id": "1"}

    monkeypatch.setattr(comfyui, "_started", started)
    monkeypatch.setattr(comfyui, "_ready", lambda *_: True)
    monkeypatch.setattr(comfyui, "_ask", ask)
    monkeypatch.setattr(comfyui, "PAUSE", 0.0)
    found = comfyui.run(argparse.Namespace(limit=60.0), tmp_path, None, [], ("a", NODES))
    assert found.stopped == "ComfyUI ended with -9; its log ends: Killed"


def test_a_file_that_is_not_there_any_more_is_made_again(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\nfor last in "$@"; do :; done\nmkdir -p "$(dirname "$last")"\necho x >> "$last"\n'
    )
    python.chmod(0o755)
    asked = argparse.Namespace(python=python, comfyui=tmp_path, nodes=None)
    small = Small({"vae/a.safetensors": "a-vae"}, {})
    made = tmp_path / "made" / "a-vae.safetensors"
    for _ in range(2):
        assert own_workflows._make(small, asked, tmp_path) == ""
        assert made.read_text() == "x\n", "once"
    made.unlink()
    (tmp_path / "models/vae/a.safetensors").unlink()
    assert own_workflows._make(small, asked, tmp_path) == ""
    assert made.read_text() == (tmp_path / "models/vae/a.safetensors").read_text() == "x\n"
