"""What a pod is told of a node, and what of it is built in: by its licence, and whether that was accepted."""

from __future__ import annotations

import hashlib
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pydantic import ValidationError

from pod.flags import node_selection
from pod.source_trees.source_tree import SourceTree
from podkiln.config import nodes
from podkiln.config.document import ROOT
from podkiln.config.node_parts import NodeCode
from podkiln.errors import DescriptionError
from podkiln.plan import node_layers
from podkiln.plan.node_layers import PlannedNode
from podkiln.render import node_stages

if TYPE_CHECKING:
    from pathlib import Path

PATCH = "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n"
AT = {"commit": "c" * 40, "tree": "d" * 40}
NODE: dict[str, Any] = {
    "repo": "https://github.com/o/Example",
    **AT,
    "licence": {"id": None, "bake": "ask"},
    "models": ["film"],
    "environment": {"CKPTS": "{workspace}/models/film"},
    "submodules": [{"path": "lib/inner", "repo": "https://github.com/o/inner", **AT}],
    "patches": [{"file": "p.patch", "sha256": hashlib.sha256(PATCH.encode()).hexdigest(), "why": "x"}],
    "code": [
        {
            "name": "engine",
            "repo": "https://github.com/o/engine",
            **AT,
            "variable": "PODKILN_ENGINE",
            "licence": {"id": "CC-BY-NC-4.0", "commercial": False, "bake": "ask"},
            "patches": [
                {"file": "p.patch", "sha256": hashlib.sha256(PATCH.encode()).hexdigest(), "why": "x"}
            ],
        }
    ],
}
FREE = {"id": "MIT", "commercial": True}


def planned(folder: Path, *, accepted: bool, **changes: Any) -> PlannedNode:
    (folder / "p.patch").write_text(PATCH)
    (folder / f"n{len([*folder.glob('*.yaml')])}.yaml").write_text(yaml.safe_dump({**NODE, **changes}))
    (entry,) = list(nodes.load(folder).values())[-1:]
    return PlannedNode(entry, None, accepted)


def inputs(node: PlannedNode) -> list[str]:
    facts = node_stages.facts_of(node)
    return [part["words"] for part in facts["parts"]] if facts["included"] else []


def test_what_asks_is_described_to_the_last_byte(tmp_path: Path) -> None:
    data = node_stages.as_json(planned(tmp_path, accepted=False))
    assert (data["included"], data["code"][0]["folder"]) == (False, None)
    assert SourceTree.from_json(data).patches == (PATCH,)
    assert [(each.path, each.tree.tree) for each in SourceTree.from_json(data).submodules] == [
        ("lib/inner", AT["tree"])
    ]
    assert SourceTree.from_json(data["code"][0]) == SourceTree(
        "https://github.com/o/engine", AT["commit"], AT["tree"], (), (PATCH,)
    )
    (offer,) = node_selection.from_json({"nodes": [data]})
    assert offer.environment == (("CKPTS", "{workspace}/models/film"),)
    assert offer.code[0].variable == "PODKILN_ENGINE"


def test_what_was_accepted_is_built_in(tmp_path: Path) -> None:
    node = planned(tmp_path, accepted=True)
    data = node_stages.as_json(node)
    assert (data["patches"], data["submodules"], data["code"][0]["patches"]) == ([], [], [])
    folder = data["code"][0]["folder"]
    assert inputs(node) == ["submodule inner lib/inner", f"code engine {folder} /build/apply_patches.py"]
    (offer,) = node_selection.from_json({"nodes": [data]})
    assert offer.code[0].folder == folder


def test_places_are_words_of_a_shell(tmp_path: Path) -> None:
    odd = "lib/in ner; $(x)'"
    changes = {"submodules": [{**NODE["submodules"][0], "path": odd}], "code": []}
    path = {"name": "p", "repo": "https://github.com/o/p", **AT, "folder": odd, "licence": "MIT"}
    of_submodule, of_path = inputs(planned(tmp_path, accepted=True, licence=FREE, paths=[path], **changes))
    assert shlex.split(of_submodule)[2:] == shlex.split(of_path)[3:] == [odd]


def test_a_node_of_our_own_is_built_in_without_the_code_that_asks(tmp_path: Path) -> None:
    node = planned(tmp_path, accepted=False, licence=FREE, submodules=[])
    assert node.included
    assert inputs(node) == []
    assert node_stages.as_json(node)["code"][0]["folder"] is None
    assert "is fetched at the start; --accept-licence" in "".join(node_layers.notes([node]))
    free = [{**NODE["code"][0], "licence": FREE}]
    assert inputs(planned(tmp_path, accepted=False, licence=FREE, submodules=[], code=free))[0].startswith(
        "code"
    )


def test_a_patch_of_code_is_the_one_that_was_hashed(tmp_path: Path) -> None:
    node = planned(tmp_path, accepted=False)
    (tmp_path / "p.patch").write_text(f"{PATCH} ")
    with pytest.raises(
        DescriptionError, match=r"has the sha256 .*, which is not the one that stands here"
    ) as wrong:
        list(node.entry.code_patches(0))
    assert "code" in str(wrong.value) or "n0.yaml" in str(wrong.value)


PACKAGE = {**NODE["code"][0], "name": "package", "licence": "MIT"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "packages in the image of code that is not": (
        {"paths": [{key: PACKAGE[key] for key in ("name", "repo", "commit", "tree", "licence")}]},
        "`paths` do not go with `bake: ask`: where the licence is not accepted, a pod fetches",
    ),
    "two folders in one variable": (
        {"code": [NODE["code"][0], {**NODE["code"][0], "name": "other"}]},
        "code names one place twice",
    ),
    "a variable twice": ({"environment": {"PODKILN_X": "1"}}, "PODKILN_X is a variable of the image itself"),
    "code in a variable of the image": (
        {"code": [{**NODE["code"][0], "variable": "CUDA_VISIBLE_DEVICES"}]},
        "CUDA_VISIBLE_DEVICES is a variable of the image itself",
    ),
    "code without terms": (
        {"code": [{**NODE["code"][0], "licence": {"id": None}}]},
        "code without a licence is not handed on in images",
    ),
    "the form of an address": (
        {"code": [{**NODE["code"][0], "repo": "https://github.com/o/engine.git"}]},
        "without .git",
    ),
    "one name for two": (
        {"code": [{**NODE["code"][0], "name": "inner"}]},
        "two of submodules, paths and code have one name",
    ),
}


def test_what_the_pod_reads_is_no_variable_of_a_node() -> None:
    sources = [*(ROOT / "scripts/pod").rglob("*.py"), *(ROOT / "templates").rglob("*.j2")]
    names = {name for path in sources for name in re.findall(r"\bPODKILN_[A-Z_]+\b", path.read_text())}
    assert "PODKILN_RUN" in names
    for name in names:
        with pytest.raises(ValidationError, match=f"{name} is a variable of the image itself"):
            NodeCode.model_validate({**NODE["code"][0], "variable": name})


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, name: str) -> None:
    changes, expected = REFUSED[name]
    with pytest.raises(DescriptionError, match=expected):
        planned(tmp_path, accepted=False, **changes)
