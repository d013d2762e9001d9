"""variants/own-nodes: what is said of a node agrees with the node."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nodes.infcam import process
from podkiln.config import catalog

ROOT = Path(__file__).resolve().parents[3]
NODES = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "variants/own-nodes").glob("*.yaml")}


def test_every_node_is_described() -> None:
    assert set(NODES) == {path.parent.name for path in (ROOT / "scripts/nodes").glob("*/node.py")}


@pytest.mark.parametrize("name", NODES)
def test_what_is_said_of_a_node_is_what_it_does(name: str) -> None:
    described: dict[str, Any] = NODES[name]
    node, code = importlib.import_module(f"nodes.{name}.node"), described["code"]
    assert described["source"] == f"scripts/nodes/{name}"
    assert (code["variable"], code["witness"]) == (node.CODE, node.WITNESS)
    assert all(re.fullmatch("[0-9a-f]{40}", code[key]) for key in ("commit", "tree"))
    assert code["licence"]["bake"] == "ask"
    (model,) = described["models"]
    assert model == node.MODEL
    assert catalog.load()[model].model.env == node.ENABLE
    page = (ROOT / "docs/how-to/own-nodes.md").read_text()
    assert f"({code['repo']}) at `{code['commit'][:8]}`" in page


def test_infcams_packages_are_those_of_the_page() -> None:
    page = (ROOT / "docs/how-to/own-nodes.md").read_text()
    command = re.search(r"^pip install --no-deps --target DIR (.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert command is not None
    assert command[1].replace("\\\n", " ").split() == NODES["infcam"]["python"]["install"]
    assert NODES["infcam"]["python"]["variable"] == process.PACKAGES
