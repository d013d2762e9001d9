"""`nodes:` over the files of a chain: which nodes, in which order, and what a child changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from descriptions import SHA, VARIANT, write

from podkiln.config import variant as variants
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = SHA[:40]
MINE = f"mine: {{repo: https://github.com/x/Mine, commit: {COMMIT}, environment: {{A: '1'}}}}"


def nodes(tmp_path: Path, parent: str, child: str) -> list[str]:
    write(tmp_path / "parent.yaml", f"{VARIANT}nodes: {parent}\n")
    text = f"extends: parent.yaml\ntitle: t\ndescription: d\nnodes: {child}\n"
    return list(variants.load(str(write(tmp_path / "child.yaml", text))).nodes)


@pytest.mark.parametrize(
    ("parent", "child", "comes"),
    [
        ("[kjnodes, gguf]", "[gguf]", ["gguf"]),
        ("[kjnodes, gguf]", "[]", []),
        ("[kjnodes, gguf]", "{add: [rgthree]}", ["kjnodes", "gguf", "rgthree"]),
        ("[kjnodes, gguf]", "{remove: [kjnodes], add: [rgthree]}", ["gguf", "rgthree"]),
        ("[kjnodes]", f"{{{MINE}}}", ["kjnodes", "mine"]),
        ("[kjnodes]", f"{{add: [gguf], {MINE}}}", ["kjnodes", "gguf", "mine"]),
        ("[kjnodes]", f"[{{{MINE}}}, gguf]", ["mine", "gguf"]),
        (f"{{{MINE}}}", "{remove: [mine]}", [*variants.load("consumer").nodes]),
    ],
)
def test_a_child_replaces_or_changes_what_its_parent_has(
    parent: str, child: str, comes: list[str], tmp_path: Path
) -> None:
    assert nodes(tmp_path, parent, child) == comes


def test_a_child_says_of_a_described_node_only_what_differs(tmp_path: Path) -> None:
    other = COMMIT.replace("0", "f", 1)
    names = nodes(tmp_path, f"[kjnodes, {{{MINE}}}]", f"{{mine: {{commit: {other}}}}}")
    assert names == ["kjnodes", "mine"], "in its place"
    mine = variants.load(str(tmp_path / "child.yaml")).nodes["mine"].node
    assert (mine.repo, mine.commit, mine.environment) == ("https://github.com/x/Mine", other, {"A": "1"})


@pytest.mark.parametrize(
    ("parent", "child", "says"),
    [
        ("[kjnodes]", "{add: [kjnodes]}", "child.yaml:4: nodes.add[0]: the node 'kjnodes' is there already."),
        (f"{{{MINE}}}", "{mine: {commit: main}}", "child.yaml:4: nodes.mine.commit: "),
        ("{mine: {repo: x}}", f"{{mine: {{commit: {COMMIT}}}}}", "parent.yaml:6: nodes.mine.repo: "),
    ],
)
def test_what_is_wrong_is_blamed_on_the_file_that_says_it(
    parent: str, child: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(DescriptionError) as raised:
        nodes(tmp_path, parent, child)
    assert says in str(raised.value)
