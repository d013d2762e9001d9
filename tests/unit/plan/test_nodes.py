"""Custom nodes in a plan: whose code is left out, what stands in for one, what a build of several takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import added
import pytest
from descriptions import SHA, VARIANT, write
from plans import plan_of

from pod.flags import node_selection
from podkiln.config import nodes as node_config
from podkiln.config import variant as variants
from podkiln.config.document import ROOT
from podkiln.errors import DescriptionError, UsageError
from podkiln.lock import nodes as node_locks
from podkiln.lock.nodes import LockedNode, LockedNodes, LockedTree, NodesLock
from podkiln.options import BuildRequest
from podkiln.pipeline import planning
from podkiln.pipeline.request import check
from podkiln.plan import node_layers, substitutes
from podkiln.render import bake_file, build_context, image_metadata
from podkiln.render.image_config import RenderedConfig
from podkiln.util.git_tree import tree_id

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.plan.plan import Plan

PIN = f"repo: https://github.com/x/Mine, commit: {SHA[:40]}, tree: {SHA[:40]}"
ASKS = "licence: {id: CC-BY-NC-4.0, commercial: false, bake: ask}"


def planned(tmp_path: Path, more: str = "", **asked: Any) -> Plan:
    """A variant with one node of its own and none else, locked by hand: no package comes with it."""
    path = write(tmp_path / "mine.yaml", f"{VARIANT}nodes: [{{mine: {{{PIN}, {more}}}}}]\n")
    described = variants.load(str(path))
    (entry,) = described.nodes.values()
    mine = LockedNode(
        id="mine",
        repo=entry.node.repo,
        commit=entry.node.commit,
        tree=entry.node.tree,
        parts=node_locks.trees(entry),
        submodules=node_locks.submodules(entry),
    )
    runtime = plan_of("consumer").lock.runtime
    document = NodesLock(onto=node_locks.onto(runtime), nodes=(mine,))
    folder = tmp_path / "mine.locks/nodes" / described.spec.runtime.name
    write(folder / node_locks.FILE, document.model_dump_json())
    return planning.make_plan(described, BuildRequest.of([str(path)], no_weights=True, **asked))


# --- licences


def test_code_that_is_not_to_be_handed_on_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    made = planned(tmp_path, f"{ASKS}, environment: {{MINE: '1'}}")
    assert "custom node mine" not in [layer.what for layer in made.layers]
    dockerfile = build_context.dockerfile(made)
    assert "custom_nodes/Mine" not in dockerfile
    assert "AS node-mine" not in dockerfile
    assert "nodes-imported" not in dockerfile, "there is nothing to import"
    assert "MINE" not in RenderedConfig.of(made).environment
    says = "The node mine is under CC-BY-NC-4.0, so its code is not in the image and is fetched at the start"
    assert any(note.startswith(says) for note in made.notes)
    files = build_context.render(made)
    assert json.loads(files["podkiln/manifest.json"].content)["nodes"] == {}
    (row,) = json.loads(files["podkiln/nodes.json"].content)["nodes"]
    assert (row["folder"], row["included"]) == ("Mine", False)


def test_a_licence_that_is_accepted_builds_it_in(tmp_path: Path) -> None:
    made = planned(tmp_path, ASKS, accept_licence=("mine",))
    assert "custom node mine" in [layer.what for layer in made.layers]
    assert "mine=Mine" in build_context.dockerfile(made)
    assert made.as_json()["nodes"][0]["included"] is True


def test_code_without_a_licence_is_left_out_too(tmp_path: Path) -> None:
    made = planned(tmp_path, "licence: {id: null, bake: ask}")
    assert any("The node mine has no licence, so its code is not in the image" in note for note in made.notes)


def test_a_licence_of_nothing_is_refused(tmp_path: Path) -> None:
    described = planned(tmp_path).described
    request = BuildRequest.of(["x"], no_weights=True, accept_licence=("mime",))
    with pytest.raises(UsageError, match="there is no model or node 'mime'"):
        check(request, [described], {"sdxl-base"})
    check(replace(request, weights=replace(request.weights, accept_licence=("mine",))), [described], {"x"})


# --- what stands in


def test_no_nodes_is_a_substitute_that_leaves_out_nodes_and_their_packages() -> None:
    whole, bare = plan_of("lazy"), plan_of("lazy", source=("nodes=none",))
    assert [each.name for each in bare.substituted] == ["nodes"]
    assert build_context.labels(bare)["io.podkiln.substituted"] == "nodes=none"
    assert [layer.what for layer in whole.layers if "node" in layer.kind] != []
    assert [layer.what for layer in bare.layers if "node" in layer.kind] == []
    dockerfile = build_context.dockerfile(bare)
    assert "node-" not in dockerfile
    assert "nodes-imported" not in dockerfile
    assert any("storymem needs node:wanvideowrapper, which this image lacks" in note for note in bare.notes)
    contexts = bake_file.bake_file([bare], bake_file.BuildSecrets(), {})["target"]["lazy"]
    assert "contexts" not in contexts, "it is no context of BuildKit's"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("nodes=x",), "'x' is not the word none, which leaves all nodes out"),
        (("node-nope=.",), "there is no input 'node-nope'"),
        (("nodes=none", "node-kjnodes=https://x.example/y.git#" + "0" * 40), "leaves all nodes out"),
    ],
)
def test_what_makes_no_sense_is_refused(options: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        plan_of("lazy", source=options)


def test_what_is_locked_above_nodes_is_not_built_without_them(tmp_path: Path) -> None:
    lock = added.plan(tmp_path, locked=False).lock
    with pytest.raises(UsageError, match=r"nodes=none: what the variant adds \(.+\) is locked above"):
        substitutes.source("nodes=none", lock)
    assert substitutes.source("nodes=none", replace(lock, additions=None)).actual == "none"


def test_of_several_variants_each_takes_the_nodes_that_it_has() -> None:
    mirror = f"node-wanvideowrapper=https://x.example/wan.git#{'0' * 40}"
    request = BuildRequest.of(["consumer", "lazy"], no_weights=True, source=(mirror,))
    consumer, lazy = planning.decide(request)
    assert consumer.inputs == ()
    assert [each.name for each in lazy.substituted] == ["node-wanvideowrapper"]
    targets = bake_file.bake_file([consumer, lazy], bake_file.BuildSecrets(), {"ca": "/ca"})["target"]
    assert targets["consumer"]["contexts"] == {"ca": "/ca"}
    assert targets["lazy"]["contexts"].keys() == {"ca", "node-wanvideowrapper"}
    with pytest.raises(UsageError, match="there is no input 'node-wanvideowrapper'"):
        planning.decide(replace(request, variants=("consumer",)))


# --- trees


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a submodule in it, as git makes it."""
    quiet = ["-c", "user.name=n", "-c", "user.email=n@example.com", "-c", "protocol.file.allow=always"]

    def git(folder: Path, *words: str) -> None:
        subprocess.run(["git", "-C", str(folder), *quiet, *words], check=True, capture_output=True)

    for name in ("part", "node"):
        folder = tmp_path / name
        folder.mkdir()
        git(folder, "init", "--quiet")
        (folder / f"{name}.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
        (folder / "__init__.py").touch()
        if name == "node":
            git(folder, "submodule", "add", "--quiet", str(tmp_path / "part"), "more/part")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message=one")
    return tmp_path / "node"


def of_git(folder: Path, what: str) -> str:
    argv = ["git", "-C", str(folder), "rev-parse", what]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("state", ["checked out", "empty", "absent"])
def test_a_checkout_has_its_tree_whatever_lies_in_the_place_of_a_submodule(
    state: str, checkout: Path
) -> None:
    if state != "checked out":
        shutil.rmtree(checkout / "more")
    if state == "empty":
        (checkout / "more/part").mkdir(parents=True)
    links = {"more/part": of_git(checkout.parent / "part", "HEAD")}
    assert tree_id(checkout, links) == of_git(checkout, "HEAD^{tree}")
    assert tree_id(checkout) != of_git(checkout, "HEAD^{tree}")
    (checkout / "node.py").write_text("pass\n")
    assert tree_id(checkout, links) != of_git(checkout, "HEAD^{tree}")


def test_a_node_and_its_submodule_are_two_inputs(checkout: Path) -> None:
    part = checkout.parent / "part"
    tree = LockedTree(repo="https://x/part", commit=of_git(part, "HEAD"), tree=of_git(part, "HEAD^{tree}"))
    node = LockedNode(
        id="mine",
        repo="https://x/node",
        commit=of_git(checkout, "HEAD"),
        tree=of_git(checkout, "HEAD^{tree}"),
        parts={"part": tree},
        submodules={"more/part": tree.commit},
    )
    lock = replace(
        plan_of().lock,
        nodes=LockedNodes(checkout, NodesLock(onto=f"sha256:{'0' * 64}", nodes=(node,))),
    )
    assert list(node_layers.inputs(lock)) == ["node-mine", "node-mine-part"]
    for name, folder in (("node-mine", checkout), ("node-mine-part", part)):
        shutil.rmtree(folder / ".git")  # a copy without history has the same files
        assert not substitutes.source(f"{name}={folder}", lock).substituted
        (folder / "other.py").write_text("pass\n")
        assert substitutes.source(f"{name}={folder}", lock).substituted


# --- nodes of this repository


def test_a_node_of_this_repository_is_an_input_like_another(tmp_path: Path) -> None:
    own = ROOT / "scripts/nodes/mvinverse"
    lock = plan_of("lazy").lock
    same = tmp_path / "same"
    shutil.copytree(own, same)
    given = substitutes.source(f"node-mvinverse={same}", lock)
    assert (given.substituted, given.locked) == (False, tree_id(own))
    (same / "node.py").write_text("pass\n")
    assert substitutes.source(f"node-mvinverse={same}", lock).substituted
    commit = substitutes.source(f"node-mvinverse=https://x.example/y.git#{'0' * 40}", lock)
    assert (commit.substituted, commit.locked) == (True, tree_id(own))
    made = plan_of("lazy", source=(f"node-mvinverse={same}",))
    assert [each.name for each in made.substituted] == ["node-mvinverse"]


def test_a_node_of_this_repository_comes_with_the_build_context() -> None:
    made = plan_of("lazy")
    dockerfile, files = build_context.dockerfile(made), build_context.render(made)
    assert "FROM scratch AS node-infcam\nCOPY nodes/infcam/ /\n" in dockerfile
    own = ROOT / "scripts/nodes/infcam"
    found = {path.removeprefix("nodes/infcam/") for path in files if path.startswith("nodes/infcam/")}
    assert found == {str(path.relative_to(own)) for path in own.rglob("*.py")}
    assert files["nodes/infcam/node.py"].content == (own / "node.py").read_bytes()
    assert json.loads(files["podkiln/manifest.json"].content)["nodes"]["infcam"] == tree_id(own)
    row = next(each for each in made.as_json()["nodes"] if each["node"] == "infcam")
    assert (row["source"], row["commit"], row["included"]) == ("scripts/nodes/infcam", None, True)
    assert any("The code upstream of the node infcam has no licence" in note for note in made.notes)


def test_an_environment_of_its_own_is_a_layer_above_the_image_s_and_named_for_the_import() -> None:
    made = plan_of("lazy")
    dockerfile = build_context.dockerfile(made)
    (step,) = re.findall(
        r"^RUN (?:.*\\\n)+.*python-layer.sh /requirements/node-infcam.txt .*$", dockerfile, re.MULTILINE
    )
    assert "/venv --without-pip" not in step
    assert "python3 -m venv --without-pip /opt/node-venvs/infcam " in step
    assert "echo /opt/venv/lib/python3.13/site-packages" in step
    assert step.endswith(" /opt/node-venvs/infcam")
    assert 'ENV PODKILN_INFCAM_PYTHON="/opt/node-venvs/infcam/bin/python"' in dockerfile
    (row,) = (each for each in image_metadata.nodes(made)["nodes"] if each["id"] == "infcam")
    (offer,) = node_selection.from_json({"nodes": [row]})
    chosen = node_selection.NodeSelection((node_selection.NodeDecision(offer, loaded=True, why="x"),))
    assert chosen.environment("/workspace", "/local") == {
        "PODKILN_INFCAM": "/local/code/infcam-upstream",
        "PODKILN_INFCAM_PYTHON": "/opt/node-venvs/infcam/bin/python",
    }
    assert "packages of the node infcam" in [layer.what for layer in made.layers]


def test_what_others_wrote_is_built_in_where_it_was_accepted() -> None:
    made = plan_of("lazy", accept_licence=("mvinverse",))
    dockerfile = build_context.dockerfile(made)
    assert (
        "FROM scratch AS node-mvinverse-upstream\nADD https://github.com/Maddog241/mvinverse.git#6a7f"
        in dockerfile
    )
    assert "code upstream /opt/node-code/mvinverse-upstream -" in dockerfile
    assert 'ENV PODKILN_MVINVERSE="/opt/node-code/mvinverse-upstream"' in dockerfile
    assert "node-infcam-upstream" not in dockerfile


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("empty", "the folder 'own' is empty"),
        ("link", "is a symlink, which a build does not take"),
        ("out", "leads out"),
    ],
)
def test_a_folder_that_a_build_cannot_take_is_refused(
    damage: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_config, "ROOT", tmp_path / "repository")
    own = tmp_path / "repository/own"
    own.mkdir(parents=True)
    if damage == "link":
        (own / "x.py").symlink_to("/etc/hostname")
    if damage == "out":
        own.rmdir()
        own.symlink_to(tmp_path)
    path = write(tmp_path / "mine.yaml", f"{VARIANT}nodes: [{{mine: {{source: own}}}}]\n")
    with pytest.raises(DescriptionError, match=f"nodes.*mine.source: .*{says}"):
        variants.load(str(path))


# --- what is rendered


def test_parts_and_patches_of_a_node_reach_its_step(tmp_path: Path) -> None:
    part = f"repo: https://github.com/x/part, commit: {SHA[:40]}, tree: {SHA[:40]}"
    more = f"submodules: [{{path: a/Sub, {part}}}], paths: [{{name: lib, {part}, folder: src, licence: MIT}}]"
    made = planned(tmp_path, more)
    dockerfile = build_context.dockerfile(made)
    for name in ("node-mine", "node-mine-sub", "node-mine-lib"):
        assert f"FROM scratch AS {name}\n" in dockerfile
    assert "submodule sub a/Sub" in dockerfile
    assert "path lib mine-lib src" in dockerfile


def test_variables_of_nodes_are_set_for_the_import_and_by_the_start(tmp_path: Path) -> None:
    made = planned(tmp_path, "environment: {MINE_CKPTS: '{workspace}/mine'}")
    assert "MINE_CKPTS" not in RenderedConfig.of(made).environment, "a variable of the user's would not show"
    test = build_context.dockerfile(made).partition("AS nodes-imported")[2].partition("\nFROM ")[0]
    assert 'ENV MINE_CKPTS="/workspace/mine"' in test


def test_the_image_waits_for_the_import_of_its_nodes(tmp_path: Path) -> None:
    made = planned(tmp_path)
    image = build_context.dockerfile(made).partition(" AS image\n")[2]
    assert "--mount=type=bind,from=nodes-imported,source=/imported" in image
    test = build_context.dockerfile(made).partition("AS nodes-imported")[2].partition("\nFROM ")[0]
    assert "RUN --network=none" in test
    assert "mine=Mine" in test


def test_what_a_node_fetches_when_it_is_used_is_said(tmp_path: Path) -> None:
    made = planned(tmp_path, "downloads: [{what: its checkpoint, hosts: [huggingface.co, x.org]}]")
    says = "The node mine fetches from huggingface.co, x.org when it is used, and nothing hashes that"
    assert any(note.startswith(says) for note in made.notes)
