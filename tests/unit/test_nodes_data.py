"""The shipped custom nodes: whole, honest, and at one with the models and variants that name them."""

from __future__ import annotations

import pytest

from podkiln.config import catalog, import_folders, nodes, variant
from podkiln.lock import locations, requirements
from podkiln.lock import nodes as node_locks
from podkiln.lock.requirements import known_pins

NODES = nodes.load()
MODELS = catalog.load()
LOCKS = sorted((locations.LOCKS / "nodes").glob("*/*"))


@pytest.mark.parametrize("name", NODES)
def test_a_node_says_all_that_a_person_decides_by(name: str) -> None:
    node = NODES[name].node
    assert node.title
    assert node.tree or node.source
    assert node.licence
    assert node.licence.commercial is not None
    assert list(NODES[name].patches()) or not node.patches
    assert all(each.licence for each in node.paths)


def test_models_and_nodes_name_each_other() -> None:
    for model, entry in MODELS.items():
        for want in entry.model.requires:
            kind, _, name = want.partition(":")
            if kind == "node" and name in NODES:
                assert model in NODES[name].node.models, want
    for name, described in NODES.items():
        assert set(described.node.models) <= MODELS.keys(), name


def test_each_node_lies_in_some_variant_and_the_everyday_ones_come_first_in_all() -> None:
    described = [variant.load(name) for name in variant.names()]
    assert {name for each in described for name in each.nodes} == set(NODES)
    # A variant may also list its own, and none of the others.
    shared = [list(each.nodes) for each in described if not isinstance(each.chain[0].data.get("nodes"), list)]
    everyday = min(shared, key=len)
    assert len(everyday) > 5
    assert all(each[: len(everyday)] == everyday for each in shared)


@pytest.mark.parametrize("folder", LOCKS, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_lock_has_each_package_once_and_one_owner_of_each_folder(folder: object) -> None:
    locked = node_locks.read_at(folder)  # type: ignore[arg-type]
    assert locked
    seen = [each for each in locked.document.nodes if each.packages and not each.venv]
    texts = locked.requirements()
    names = [name for each in seen for name in requirements.pinned_blocks(texts[each.id])]
    assert len(names) == sum(each.packages.packages for each in seen if each.packages)
    assert len(set(names)) == len(names)
    assert import_folders.contested(names) is None


def test_variants_share_what_they_begin_with() -> None:
    """So hosts that have one pull the later nodes alone."""
    runtime = variant.load("lazy").spec.runtime.name
    first, second = (
        node_locks.read_at(locations.LOCKS / "nodes" / name / runtime) for name in ("baked", "datacenter")
    )
    assert first
    assert second
    for name, text in first.requirements().items():
        assert known_pins([second.requirements()[name]]) == known_pins([text])
