"""The files that start.sh and ComfyUI read."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from pod.errors import PodError
from pod.util import files
from pod.volume import run_files, volume
from pod.volume.custom_nodes import Nodes
from podkiln.config import model_folders

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {"loras": ["loras"], "text_encoders": ["text_encoders", "clip"]}

# Folders of nodes, models folders, and what ComfyUI reads.
FILES: list[tuple[list[str], list[str], dict[str, dict[str, object]]]] = [
    ([], [], {}),
    (["/w/custom_nodes"], [], {"nodes": {"is_default": True, "custom_nodes": "/w/custom_nodes\n"}}),
    (  # each default goes before the one named earlier, so the first is named last
        ["/first", "/second"],
        [],
        {"nodes": {"is_default": True, "custom_nodes": "/second\n/first\n"}},
    ),
    (
        [],
        ["/w/ComfyUI/models", "/odd: #path"],
        {
            "models_1": {
                "base_path": "/w/ComfyUI/models",
                "loras": "loras\n",
                "text_encoders": "text_encoders\nclip\n",
            },
            "models_2": {
                "base_path": "/odd: #path",
                "loras": "loras\n",
                "text_encoders": "text_encoders\nclip\n",
            },
        },
    ),
]


@pytest.mark.parametrize(("nodes", "models", "expected"), FILES)
def test_the_paths_are_yaml_that_comfyui_accepts(
    nodes: list[str], models: list[str], expected: dict[str, dict[str, object]]
) -> None:
    assert yaml.safe_load(run_files.paths_yaml(nodes, models, KINDS)) == expected


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    root, run = tmp_path / "opt", tmp_path / "run"
    root.mkdir()
    run.mkdir()
    data = {"schema": 1, "folders": model_folders.load("0.33.0").places()}
    (root / volume.FOLDERS).write_text(json.dumps(data))
    return root, run


def usual(tmp_path: Path, **changes: object) -> volume.Volume:
    return volume.Volume(**{**vars(volume.usual("/work space")), "run": str(tmp_path / "run"), **changes})


def test_variables_end_with_a_nul_byte(places: tuple[Path, Path], tmp_path: Path) -> None:
    root, run = places
    run_files.write(usual(tmp_path), {"PODKILN_VENV": sys.prefix, "UV_CONSTRAINT": "mine"}, root, run)
    assert (run / "comfyui.env").read_text() == (
        f"WORKSPACE=/work space\0PIP_CONSTRAINT={run}/constraints.txt\0"
    )


def test_models_of_others_are_listed_under_all_of_comfyuis_kinds(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    root, run = places
    run_files.write(usual(tmp_path, models=("/work space/ComfyUI/models",)), {}, root, run)
    section = yaml.safe_load((run / "volume_paths.yaml").read_text())["models_1"]
    assert section["diffusion_models"] == "diffusion_models\nunet\n"
    assert set(model_folders.load("0.33.0").folders) <= set(section)


def test_constraints_are_those_of_the_containers_first_start(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    root, run = places
    run_files.write(usual(tmp_path), {"PODKILN_VENV": sys.prefix}, root, run)
    first = (run / "constraints.txt").read_text()
    assert "packaging==" in first
    run_files.write(usual(tmp_path), {"PODKILN_VENV": "/changed"}, root, run)
    assert (run / "constraints.txt").read_text() == first


@pytest.mark.parametrize("text", ["", "{}", '{"folders": ', "[]"])
def test_a_damaged_image_is_said(places: tuple[Path, Path], tmp_path: Path, text: str) -> None:
    root, run = places
    (root / volume.FOLDERS).write_text(text)
    with pytest.raises(PodError, match="rebuild the image") as refused:
        run_files.write(usual(tmp_path, models=("/m",)), {}, root, run)
    assert refused.value.exit_code == 65


def test_a_missing_file_is_said(places: tuple[Path, Path], tmp_path: Path) -> None:
    root, run = places
    (root / volume.FOLDERS).unlink()
    with pytest.raises(PodError, match="cannot be read"):
        run_files.write(usual(tmp_path, models=("/m",)), {}, root, run)


def test_a_web_uis_models_are_listed_where_it_keeps_them() -> None:
    places = {"checkpoints": ["models/Stable-diffusion"], "loras": ["models/Lora", "models/LyCORIS"]}
    found = yaml.safe_load(run_files.paths_yaml((), (), {}, ["/w/webui"], places))
    assert found == {
        "webui_1": {
            "base_path": "/w/webui",
            "checkpoints": "models/Stable-diffusion\n",
            "loras": "models/Lora\nmodels/LyCORIS\n",
        }
    }


def test_names_that_are_no_utf_8_survive(tmp_path: Path) -> None:
    """ComfyUI reads the file as strict UTF-8, and must get what os.listdir would give it."""
    name = os.fsdecode(b"/caf\xe9/nodes")
    text = run_files.paths_yaml([name, "/plain"], [name], {"loras": ["loras"]})
    found = yaml.safe_load(text.encode("utf-8"))
    assert found["nodes"]["custom_nodes"].split("\n") == ["/plain", name]
    assert found["models_1"]["base_path"] == name
    files.replace(tmp_path / "file", f"{name}\0")
    assert (tmp_path / "file").read_bytes() == b"/caf\xe9/nodes\0"


def test_what_nodes_of_the_image_ask_for_is_set_unless_the_user_has(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    root, run = places
    asked = run_files.RunNodes({"CKPTS": "/a", "FFMPEG": "/b", "EMPTY": "/c"})
    environ = {"PODKILN_VENV": sys.prefix, "FFMPEG": "/mine", "EMPTY": ""}
    run_files.write(usual(tmp_path), environ, root, run, asked)
    written = (run / "comfyui.env").read_text().split("\0")
    assert written[:2] == ["CKPTS=/a", "EMPTY=/c"]
    assert not any(line.startswith("FFMPEG") for line in written)


def test_folders_are_made_where_they_can_be(places: tuple[Path, Path], tmp_path: Path) -> None:
    root, run = places
    (tmp_path / "file").touch()
    folders = (f"{tmp_path}/file/below", f"{tmp_path}/models/rife")
    run_files.write(usual(tmp_path), {"PODKILN_VENV": sys.prefix}, root, run, run_files.RunNodes({}, folders))
    assert (tmp_path / "models" / "rife").is_dir()


def test_comfyui_looks_into_the_folder_of_fetched_nodes_and_start_sh_knows(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    root, run = places
    fetched = f"{tmp_path}/local/nodes"
    (run / "nodes.json").write_text("what became of them at the last start")
    for nodes, there in ((run_files.RunNodes(fetched=fetched), True), (None, False)):
        run_files.write(usual(tmp_path), {"PODKILN_VENV": sys.prefix}, root, run, nodes)
        folders = yaml.safe_load((run / "volume_paths.yaml").read_text())["nodes"][
            "custom_nodes"
        ].splitlines()
        assert (fetched in folders) == there
        assert folders[-1] == "/work space/custom_nodes", "new nodes go to the volume"
        assert (run / "nodes.fetch").exists() == there
        assert not (run / "nodes.json").exists()
    assert os.path.isdir(fetched), "ComfyUI ends at a folder that is not there"  # noqa: PTH112


def test_what_was_there_is_noted_where_a_whitelist_of_ours_counts(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    root, run = places
    for listed in (False, True):
        asked = run_files.RunNodes(listed=listed)
        there = usual(tmp_path, nodes=Nodes(("Mine", "OfTheImage"), own=("Mine",)))
        run_files.write(there, {"PODKILN_VENV": sys.prefix}, root, run, asked)
        written = (run / "comfyui.env").read_text().split("\0")
        assert (f"PODKILN_NODES_SEEN={run}/nodes.seen" in written) == listed
        assert (f"PYTHONPATH={root}/overlay" in written) == listed
    assert json.loads((run / "nodes.seen").read_text()) == {
        "folders": ["/work space/custom_nodes"],
        "names": ["Mine"],
    }, "one of the image's names that comes onto the volume is new"
