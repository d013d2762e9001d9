"""The custom nodes that lie in this repository: what their descriptions say agrees with what they do."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from nodes.infcam import process
from podkiln.config import catalog, nodes, variant

ROOT = Path(__file__).resolve().parents[3]
OWN = {name: entry for name, entry in nodes.load().items() if entry.node.source}


def test_every_node_is_described_and_hashed_as_git_does() -> None:
    assert set(OWN) == {path.parent.name for path in (ROOT / "scripts/nodes").glob("*/node.py")}
    for entry in OWN.values():
        names = {file.path.decode() for file in entry.own_files()}
        assert {"__init__.py", "node.py"} <= names
        assert not any(name.endswith(".pyc") for name in names)


@pytest.mark.parametrize("name", OWN)
def test_what_is_said_of_a_node_is_what_it_does(name: str) -> None:
    described, (code,) = OWN[name].node, OWN[name].node.code
    node = importlib.import_module(f"nodes.{name}.node")
    assert described.source == f"scripts/nodes/{name}"
    assert code.variable == node.CODE
    assert code.asks
    (model,) = described.models
    assert model == node.MODEL
    assert catalog.load()[model].model.env == node.ENABLE
    page = (ROOT / "docs/how-to/own-nodes.md").read_text()
    assert f"({code.repo}) at `{code.commit[:8]}`" in page


def test_the_environment_of_infcam_is_the_one_that_its_process_runs_in() -> None:
    assert OWN["infcam"].node.python.venv == process.PYTHON
    assert OWN["mvinverse"].node.python.venv is None


@pytest.mark.parametrize("name", [name for name in variant.names() if name != "baked"])
def test_a_variant_for_larger_cards_that_offers_a_model_has_its_node(name: str) -> None:
    described = variant.load(name)
    offered = {each.id: each for each in catalog.offered(described, catalog.load())}
    if name == "consumer":  # it has the everyday nodes alone
        assert not OWN.keys() & described.nodes.keys()
        return
    for each in OWN:
        assert (each in described.nodes) == (each in offered)
        assert each not in offered or offered[each].unmet == ()
