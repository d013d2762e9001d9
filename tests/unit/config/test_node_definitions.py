"""What is kept of /object_info, and how it is read again."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from podkiln.config import node_definitions
from podkiln.config.document import ROOT
from podkiln.config.node_definitions import MARKER, Input
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path


DEAD = "http://127.0.0.1:9"


def told(module: str, required: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return what /object_info says of a class."""
    return {
        "python_module": module,
        "input": {"required": required, **more},
        "output": ["IMAGE"],
        "output_name": ["image"],
        "output_node": False,
    }


SAMPLERS = [["euler", "dpmpp_2m", "ddim"], {"tooltip": "how"}]
OBJECT_INFO = {
    "Loader": told("nodes", {"name": [[f"{MARKER}vae.safetensors", "pixel_space"], {}]}),
    "Sampler": told(
        "nodes",
        {
            "model": ["MODEL"],
            "seed": ["INT", {"default": 0, "min": 0, "max": 18446744073709551615}],
            "cfg": ["FLOAT", {"min": 0.0, "max": 100.0}],
            "how": SAMPLERS,
        },
        optional={"mask": ["MASK"], "text": ["STRING", {"multiline": True, "forceInput": True}]},
    ),
    "Other": told("comfy_extras.nodes_other", {"how": SAMPLERS}),
    "Save": told("nodes", {"codec": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "auto", "inputs": {}}]}]}),
    "Own": told("custom_nodes.My-Node", {"path": [[f"local:{MARKER}diffusers", "hf:org/repo"], {}]}),
    "Foreign": told("custom_nodes.Not-Asked-For", {}),
}


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, node_definitions.Package]:
    taken = node_definitions.taken(OBJECT_INFO, {"My-Node": ("my-node", "c" * 40)}, "0.33.0")
    for name, text in taken.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return node_definitions.load(tmp_path)


def test_each_package_has_its_own_classes(packages: dict[str, node_definitions.Package]) -> None:
    assert {name: sorted(each.classes) for name, each in packages.items()} == {
        "comfyui": ["Loader", "Other", "Sampler", "Save"],
        "my-node": ["Own"],
    }
    assert packages["my-node"].version == "c" * 40


def test_an_input_is_read_as_it_was_told(packages: dict[str, node_definitions.Package]) -> None:
    how = ("euler", "dpmpp_2m", "ddim")
    assert packages["comfyui"].classes["Sampler"].inputs == (
        Input("model", "MODEL"),
        Input("seed", "INT", min=0, control=True),
        Input("cfg", "FLOAT", min=0.0, max=100.0),
        Input("how", "COMBO", choices=how),
        Input("mask", "MASK", optional=True),
        Input("text", "STRING", optional=True, multiline=True, socket=True),
    )
    assert packages["comfyui"].classes["Other"].inputs == (Input("how", "COMBO", choices=how),)


def test_a_marker_says_which_folder_a_list_is_of(packages: dict[str, node_definitions.Package]) -> None:
    assert packages["comfyui"].classes["Loader"].inputs == (
        Input("name", "COMBO", choices=("pixel_space",), folders={"vae": ""}),
    )
    assert packages["my-node"].classes["Own"].inputs == (
        Input("path", "COMBO", choices=("hf:org/repo",), folders={"diffusers": "local:"}),
    )
    assert f"models/vae/{MARKER}vae.safetensors" in node_definitions.markers(["vae"])


def test_sockets_take_what_fits() -> None:
    assert Input("a", "IMAGE,MASK").accepts("MASK")
    assert Input("a", "*").accepts("LATENT")
    assert Input("a", "LATENT").accepts("*")
    assert not Input("a", "LATENT").accepts("IMAGE")


@pytest.mark.parametrize(
    "text", ["", "{}", '{"id": "comfyui", "version": "1", "lists": [], "classes": {"A": 1}}']
)
def test_a_file_that_is_none_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "comfyui.json").write_text(text)
    with pytest.raises(DescriptionError, match=r"comfyui\.json: this is no file of node definitions"):
        node_definitions.load(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([DEAD], "http://127.0.0.1:9/object_info does not say what nodes there are: "),
        (["file:///tmp/none"], "file:///tmp/none/object_info does not say what nodes there are: "),
        (["127.0.0.1"], "127.0.0.1/object_info does not say what nodes there are: unknown url type"),
        ([DEAD, "gguf"], "'gguf' is not ID=FOLDER@COMMIT"),
        ([DEAD, "gguf=ComfyUI-GGUF@main"], "is not ID=FOLDER@COMMIT"),
        ([DEAD, f"comfyui=x@{'c' * 40}"], "is of what is named already"),
        (["[1]"], "does not say what nodes there are: "),
        (['{"A": {"python_module": "nodes"}}'], "What is said of the class A is no entry of /object_info."),
    ],
)
def test_what_definitions_cannot_be_taken_from_is_one_sentence(
    words: list[str], said: str, tmp_path: Path
) -> None:
    url, *nodes = words
    if url[0] in "{[":
        (tmp_path / "object_info").write_text(url)
        url = tmp_path.as_uri()
    argv = [sys.executable, str(ROOT / "scripts/host/workflows.py"), "definitions", url, *nodes]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_node_without_classes_is_not_taken() -> None:
    with pytest.raises(DescriptionError, match="no class of gguf is there: custom_nodes/GGUF brings none"):
        node_definitions.taken(OBJECT_INFO, {"GGUF": ("gguf", "c" * 40)}, "0.33.0")
    with pytest.raises(DescriptionError, match="no class of comfyui is there: this is no ComfyUI"):
        node_definitions.taken({}, {}, "0.33.0")


def test_comfyui_itself_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match="ComfyUI's own definitions are missing"):
        node_definitions.load(tmp_path)
