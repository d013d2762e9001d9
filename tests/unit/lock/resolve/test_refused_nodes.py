"""What people get wrong in custom nodes, and what cannot be had together: one sentence each, before a build.

The resolver is the real uv, over a folder of empty wheels.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pytest
from descriptions import SHA, VARIANT, write
from wheels import Shelf

from podkiln.errors import DescriptionError
from podkiln.lock.resolve import relock

if TYPE_CHECKING:
    from pathlib import Path

RUNTIME = """\
runtime:
  name: mine-1
  python:
    requirements: mine.in
    layers: [{name: all, why: all of them, packages: ["*"]}]
  jupyter: null
"""
REPO = "repo: https://github.com/x/Mine"
PIN = f"{REPO}, commit: {SHA[:40]}, tree: {SHA[:40]}"
OTHER = f"repo: https://github.com/x/Other, commit: {SHA[:40]}, tree: {SHA[:40]}"
PART = f"repo: https://github.com/x/part, commit: {SHA[:40]}, tree: {SHA[:40]}"
QUERY = PART.replace("/part", "/part?x")
COMMIT = f"commit: {SHA[:40]}"
OWN = "scripts/nodes/mvinverse"
CODE = f"code: [{{name: part, {PART}, variable: PODKILN_X, licence: {{id: MIT}}}}]"


class Case(NamedTuple):
    name: str
    nodes: str
    """What stands behind `nodes: `."""
    key: str
    says: str


def one(more: str) -> str:
    return f"{{mine: {{{PIN}, {more}}}}}"


def own(more: str) -> str:
    return f"{{mine: {{source: {OWN}, {more}}}}}"


def two(first: str, second: str) -> str:
    return f"{{mine: {{{PIN}, {first}}}, other: {{{OTHER}, {second}}}}}"


def asks(*lines: str) -> str:
    return f"python: {{install: [{', '.join(lines)}]}}"


CASES = [
    # --- the list
    Case(
        "a word", "kjnodes", "nodes", "expected a list of nodes, or a mapping with `add`, `remove` and nodes"
    ),
    Case(
        "an unknown node", "[kjnodez]", "nodes[0]", r"there is no node 'kjnodez'\. Did you mean 'kjnodes'\?"
    ),
    Case("one node twice", "[kjnodes, kjnodes]", "nodes[1]", "the node 'kjnodes' is there already"),
    Case("a number", "[5]", "nodes[0]", r"expected the id of a node \(it is 5\)"),
    Case("a name in capitals", "[KJNodes]", "nodes[0]", "expected the id of a node: lower-case letters"),
    Case("a path", "[../x]", "nodes[0]", "expected the id of a node: lower-case letters"),
    Case(
        "an address for a name",
        "[https://github.com/kijai/ComfyUI-KJNodes]",
        "nodes[0]",
        r"An address has the key repo: `kjnodes: \{repo: …, commit: …\}`",
    ),
    Case("a misspelt word", "{ad: [gguf]}", "nodes.ad", "a node is a mapping .* Did you mean 'add'"),
    Case(
        "a node that is described in `add`",
        f"{{add: [{{mine: {{{PIN}}}}}]}}",
        "nodes.add[0]",
        r"a node that is described here stands beside `add`",
    ),
    Case(
        "a mapping in `add`",
        f"{{add: {{mine: {{{PIN}}}}}}}",
        "nodes.add",
        "expected a list of the ids of nodes",
    ),
    Case("two in one entry", "[{a: {}, b: {}}]", "nodes[0]", "expected one node, .* and here are 2 keys"),
    Case("added twice", "{add: [kjnodes]}", "nodes.add[0]", "the node 'kjnodes' is there already"),
    Case(
        "taken out, not there", "{remove: [kjnod]}", "nodes.remove[0]", "there is no node 'kjnod' to take out"
    ),
    Case("added and taken out", "{add: [gguf], remove: [gguf]}", "nodes.remove[0]", "both added and removed"),
    # --- the source
    Case(
        "no commit", f"{{mine: {{{REPO}}}}}", "nodes.mine", "the key commit is missing: a node has `repo` and"
    ),
    Case("no repository", f"{{mine: {{{COMMIT}}}}}", "nodes.mine", "the key repo is missing"),
    Case("nothing", "{mine: {title: x}}", "nodes.mine", "the key repo is missing: .*, or else `source`"),
    Case("of two origins", one(f"source: {OWN}"), "nodes.mine", "which has no `repo`"),
    Case("a tree of ours", own(f"tree: {SHA[:40]}"), "nodes.mine", "which has no `tree`"),
    Case(
        "a patch of ours",
        own(f"patches: [{{file: x, sha256: {SHA}, why: x}}]"),
        "nodes.mine",
        "which has no `patches`",
    ),
    Case(
        "terms of ours",
        own("licence: {id: null, bake: ask}"),
        "nodes.mine",
        "`source` lies in each image, so its licence cannot be one that asks",
    ),
    Case(
        "no folder",
        "{mine: {source: scripts/nodes/x}}",
        "nodes.mine.source",
        "'scripts/nodes/x' is no folder",
    ),
    Case(
        "a file",
        "{mine: {source: LICENSE}}",
        "nodes.mine.source",
        "'LICENSE' is no folder of this repository",
    ),
    Case("a way out", "{mine: {source: ../x}}", "nodes.mine.source", "climbs out of its folder"),
    Case("another machine's path", "{mine: {source: /x}}", "nodes.mine.source", "expected a relative path"),
    Case(
        "one folder for two of ours",
        f"{{mine: {{source: {OWN}}}, other: {{source: {OWN}}}}}",
        "nodes.other.source",
        "its folder 'mvinverse' is that of the node 'mine' already",
    ),
    Case(
        "a branch",
        f"{{mine: {{{REPO}, commit: main}}}}",
        "nodes.mine.commit",
        "a commit of 40 lower-case hex",
    ),
    Case(
        "a short commit",
        f"{{mine: {{{REPO}, commit: 0123456}}}}",
        "nodes.mine.commit",
        "put it in quotes|40 lower",
    ),
    Case(
        "ssh",
        f"{{mine: {{repo: 'git@github.com:x/y', {COMMIT}}}}}",
        "nodes.mine.repo",
        "this is an address for ssh",
    ),
    Case(
        "a login",
        f"{{mine: {{repo: 'https://me:s3cret@github.com/x/y', {COMMIT}}}}}",
        "nodes.mine.repo",
        "expected a URL without a login in it",
    ),
    Case(
        "with .git",
        f"{{mine: {{repo: 'https://github.com/x/y.git', {COMMIT}}}}}",
        "nodes.mine.repo",
        r"the repository without \.git",
    ),
    *(
        Case(name, f"{{mine: {{repo: '{repo}', {COMMIT}}}}}", "nodes.mine.repo", says)
        for name, repo, says in (
            ("a query", "https://github.com/x/y?z", r"without \? and what stands behind it"),
            ("a query, written otherwise", "https://github.com/x/y%3Fz", "without %XX for what divides"),
            ("a way up", "https://github.com/x/../y", r"without \. and \.\. between its /"),
            ("a way up, written otherwise", "https://github.com/x/%2e%2e/y", r"without \. and \.\. between"),
            ("a variable in an address", "https://github.com/x/$y", r"letters, digits and \. _ ~ - or %XX"),
            ("an address without end", "https://github.com/x/" + "y" * 5000, "of at most 1000 characters"),
        )
    ),
    *(
        Case(f"{name} from a query", one(more), f"nodes.mine.{key}.repo", "and what stands behind it")
        for name, more, key in (
            ("a submodule", f"submodules: [{{path: a, {QUERY}}}]", "submodules[0]"),
            ("a path", f"paths: [{{name: a, {QUERY}, licence: MIT}}]", "paths[0]"),
            ("code", f"code: [{{name: a, {QUERY}, variable: X, licence: {{id: MIT}}}}]", "code[0]"),
        )
    ),
    Case("a key of two lines", one('"a\\nb": 1'), "a b", "a key stands on one line"),
    Case(
        "a misspelt key",
        one("licens: {id: MIT}"),
        "nodes.mine.licens",
        r"unknown key\. Did you mean 'licence'",
    ),
    Case(
        "a tree that is none",
        f"{{mine: {{{REPO}, {COMMIT}, tree: abc}}}}",
        "nodes.mine.tree",
        "40 lower-case",
    ),
    # --- where it lies
    Case("a folder with a slash", one("folder: a/b"), "nodes.mine.folder", "'a/b' is no name of a folder"),
    Case(
        "a disabled folder",
        one("folder: x.disabled"),
        "nodes.mine.folder",
        "ComfyUI does not take for a folder",
    ),
    Case("the folder of examples", one("folder: podkiln"), "nodes.mine.folder", "the image's own example"),
    Case(
        "one folder for two",
        two("notes: []", "folder: mine"),
        "nodes.other.folder",
        "its folder 'mine' is that of the node 'mine' already",
    ),
    Case(
        "a submodule that climbs",
        one(f"submodules: [{{path: ../x, {PART}}}]"),
        "nodes.mine.submodules[0].path",
        "climbs out of its folder",
    ),
    *(
        Case(
            f"a submodule in {path}",
            one(f"submodules: [{{path: {path}, {PART}}}]"),
            "nodes.mine.submodules[0].path",
            "which is left out of each source tree",
        )
        for path in (".git", "a/.GIT/b", "__pycache__")
    ),
    Case(
        "a folder for the path in .git",
        one(f"paths: [{{name: a, folder: .git, {PART}, licence: MIT}}]"),
        "nodes.mine.paths[0].folder",
        "which is left out of each source tree",
    ),
    Case(
        "a submodule in another",
        one(f"submodules: [{{path: a, {PART}}}, {{path: a/b, {PART}}}]"),
        "nodes.mine",
        "the submodule 'a/b' lies in another one",
    ),
    Case(
        "a submodule without a tree",
        one(f"submodules: [{{path: a, repo: https://github.com/x/part, {COMMIT}}}]"),
        "nodes.mine.submodules[0].tree",
        "this key is missing",
    ),
    Case(
        "two parts of one name",
        one(f"submodules: [{{path: a/p, {PART}}}], paths: [{{name: p, {PART}, licence: MIT}}]"),
        "nodes.mine",
        "two of submodules, paths and code have one name at their end",
    ),
    Case(
        "a node that is called like a part",
        f"{{mine: {{{PIN}, submodules: [{{path: p, {PART}}}]}}, mine-p: {{{OTHER}}}}}",
        "nodes.mine-p",
        "its input node-mine-p is one of the node 'mine' too",
    ),
    # --- what it may be used for, and what it sets
    Case("no licence, handed on", one("licence: {id: null}"), "nodes.mine.licence", "write `bake: ask`"),
    Case(
        "not commercial, handed on",
        one("licence: {id: CC-BY-NC-4.0, commercial: false}"),
        "nodes.mine.licence",
        "not for commercial use is not handed on in images",
    ),
    Case(
        "a variable of ours",
        one("environment: {PATH: /x}"),
        "nodes.mine.environment",
        "a variable of the image",
    ),
    Case(
        "a hole",
        one("environment: {X: '{home}/x'}"),
        "nodes.mine.environment",
        "{workspace} alone is filled in",
    ),
    *(
        Case(name, one(f"environment: {{X: '{value}'}}"), "nodes.mine.environment", says)
        for name, value, says in (
            ("out of the workspace", "{workspace}/a/../..", r"X: expected a path in \{workspace\}, and '"),
            ("beside the workspace", "{workspace}-2/a", r"X: expected a path in \{workspace\}, and '"),
            ("in a list, out of it", "/a:{workspace}/..", r"X: expected a path in \{workspace\}, and '"),
            ("a value without end", "a" * 5000, r"X: expected at most 4096 characters \(it has 5000\)"),
        )
    ),
    Case(
        "one variable, two values",
        two("environment: {X: a}", "environment: {X: b}"),
        "nodes.other.environment.X",
        "X is 'b', and the node 'mine' sets 'a'",
    ),
    Case(
        "one variable, two folders",
        two(CODE, CODE),
        "nodes.other.code",
        "PODKILN_X is 'code part of other', and the node 'mine' sets 'code part of mine'",
    ),
    Case(
        "an unknown model",
        one("models: [sdxl-bass]"),
        "nodes.mine.models[0]",
        "there is no model 'sdxl-bass'",
    ),
    Case(
        "an address for a host",
        one("downloads: [{what: x, hosts: ['https://x']}]"),
        "nodes.mine.downloads[0]",
        "a host",
    ),
    Case(
        "a patch that is not there",
        one(f"patches: [{{file: no.patch, sha256: {SHA}, why: x}}]"),
        "nodes.mine.patches[0].file",
        "'no.patch' does not exist",
    ),
    Case(
        "another patch",
        one(f"patches: [{{file: mine.in, sha256: {SHA}, why: x}}]"),
        "nodes.mine.patches[0].sha256",
        "has the sha256 [0-9a-f]{64}, which is not the one that stands here",
    ),
    # --- what it asks for
    Case("no requirement", one(asks("'=='")), "nodes.mine.python.install[0]", "is not a Python requirement"),
    Case(
        "an address",
        one(asks("'git+https://github.com/x/x'")),
        "nodes.mine.python.install[0]",
        "or, for a node, name its repository under `paths`",
    ),
    Case(
        "another file",
        one(asks("'-r more.txt'")),
        "nodes.mine.python.install[0]",
        "copy the lines of that file in its place",
    ),
    Case("a comment", one(asks("'foo  # x'")), "nodes.mine.python.install[0]", "leave the comment out"),
    Case(
        "an option",
        one(asks("'--pre'")),
        "nodes.mine.python.install[0]",
        "it is an option of pip's, and packages",
    ),
    Case(
        "a git address",
        one(asks("'x @ git+https://github.com/x/x'")),
        "nodes.mine.python.install[0]",
        "'x' has an address, and only wheels of the package index are locked",
    ),
    Case(
        "a marker",
        one(asks("\"x; sys_platform == 'win32'\"")),
        "nodes.mine.python.install[0]",
        "has a marker",
    ),
    Case(
        "a package twice",
        one(asks("Foo", "foo>=1")),
        "nodes.mine.python",
        "'foo>=1' and 'Foo' are one package",
    ),
    Case(
        "dropped and installed",
        one("python: {install: [foo], dropped: [{line: 'foo<2', why: x}]}"),
        "nodes.mine.python",
        "'foo<2' is dropped, and 'foo' is installed",
    ),
    Case(
        "dropped without a why",
        one("python: {dropped: [{line: foo}]}"),
        "nodes.mine.python.dropped[0].why",
        "missing",
    ),
    # --- an environment of its own
    Case(
        "no variable", one("python: {venv: a-b}"), "nodes.mine.python.venv", "name of an environment variable"
    ),
    Case(
        "a variable of the image",
        one("python: {venv: PATH}"),
        "nodes.mine.python.venv",
        "variable of the image",
    ),
    Case(
        "a variable twice",
        one("python: {venv: X}, environment: {X: '1'}"),
        "nodes.mine",
        "X is set by environment and by python.venv",
    ),
    Case(
        "a variable twice, of two nodes",
        two("environment: {X: '1'}", "python: {venv: X}"),
        "nodes.other.python.venv",
        "X is 'the Python of other', and the node 'mine' sets '1'",
    ),
    Case(
        "of the environment, what nobody has",
        one("python: {venv: X, install: [brick, nothing-of-the-kind]}"),
        "nodes.mine.python.install[1]",
        "the package index has no package 'nothing-of-the-kind'",
    ),
    Case(
        "of the environment, source alone",
        one("python: {venv: X, install: [cooked]}"),
        "nodes.mine.python.install[0]",
        "cooked of the node mine needs raw, which the package index has as source alone",
    ),
    Case(
        "an environment against itself",
        one("python: {venv: X, install: [low, high]}"),
        "nodes.mine.python",
        "the packages of this node do not go together: ",
    ),
    # --- what cannot be had together
    Case(
        "a package that nobody has",
        one(asks("nothing-of-the-kind")),
        "nodes.mine.python.install[0]",
        "the package index has no package 'nothing-of-the-kind'",
    ),
    Case(
        "a version that nobody has",
        one(asks("brick==9")),
        "nodes.mine.python.install[0]",
        "brick==9 cannot be had: Because there is no version of brick==9",
    ),
    Case(
        "another version than the runtime's",
        one(asks("brick", "bar<1")),
        "nodes.mine.python.install[1]",
        "bar<1 of the node mine does not go with bar 1.0, which the layers of the runtime have and keep",
    ),
    Case(
        "a version that nobody has, where the runtime has another",
        one(asks("bar==7")),
        "nodes.mine.python.install[0]",
        "bar==7 of the node mine does not go with bar 1.0, which the layers of the runtime have and keep",
    ),
    Case(
        "a dependency on a version that nobody has",
        one(asks("narrow")),
        "nodes.mine.python.install[0]",
        "narrow of the node mine needs another bar than bar 1.0, which the layers of the runtime have and",
    ),
    Case(
        "an extra that its package has not",
        one(asks("'brick[red]'")),
        "nodes.mine.python.install[0]",
        r"brick\[red\] cannot be had: brick 2.0 has no extra red",
    ),
    Case(
        "a name without end",
        one(asks("a" * 5000)),
        "nodes.mine.python.install[0]",
        "is longer than the 500 characters of a requirement",
    ),
    Case(
        "a dependency on another version than the runtime's",
        one(asks("short")),
        "nodes.mine.python.install[0]",
        "short of the node mine needs bar 0.5, and does not go with bar 1.0, which the layers of the runtime",
    ),
    Case(
        "source alone",
        one(asks("raw")),
        "nodes.mine.python.install[0]",
        "raw of the node mine needs raw, which the package index has as source alone",
    ),
    Case(
        "a dependency that is source alone",
        one(asks("cooked")),
        "nodes.mine.python.install[0]",
        "cooked of the node mine needs raw, which the package index has as source alone",
    ),
    Case(
        "two nodes against each other",
        two(asks("brick<2"), asks("brick>=2")),
        "nodes.other.python.install[0]",
        r"brick>=2 does not go with brick<2 of the node mine \(mine.yaml:12\): ",
    ),
    Case(
        "two nodes against each other, by what they need",
        two(asks("low"), asks("high")),
        "nodes.other.python.install[0]",
        r"high does not go with low of the node mine \(mine.yaml:12\): ",
    ),
    Case(
        "one node against itself",
        one(asks("low", "high")),
        "nodes.mine.python",
        "the packages of this node do not go together: ",
    ),
    Case(
        "two versions of what owns one folder",
        two(asks("'opencv-python<5'"), asks("'opencv-python-headless>=5'")),
        "nodes.other.python.install[0]",
        r"opencv-python-headless>=5 does not go with opencv-python<5 of the node mine \(mine.yaml:12\): ",
    ),
]


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime of one's own with foo and bar, and an index with more."""
    shelf = Shelf(tmp_path / "shelf")
    shelf.add("foo", "1.0", requires=("bar<2",))
    for version in ("0.5", "1.0"):
        shelf.add("bar", version)
    for version in ("1.0", "2.0"):
        shelf.add("brick", version)
    shelf.add("uv", "0.9")
    shelf.add("short", "1.0", requires=("bar<1",))
    shelf.add("narrow", "1.0", requires=("bar==7",))
    shelf.add("low", "1.0", requires=("brick<2",))
    shelf.add("high", "1.0", requires=("brick>=2",))
    shelf.add("cooked", "1.0", requires=("raw",))
    shelf.add_source("raw", "1.0")
    for version in ("4.9", "5.0"):
        shelf.add("opencv-contrib-python-headless", version)
    for key, value in shelf.environment.items():
        monkeypatch.setenv(key, value)
    write(tmp_path / "mine.in", "foo\n")
    return tmp_path / "mine.yaml"


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_it_is_refused_in_one_sentence_at_its_line(case: Case, parent: Path) -> None:
    # What is described in place stands without the parent's nodes, so that the small index has all.
    base = "base" if case.nodes.startswith(("{add", "{remove", "[", "k")) else "none.yaml"
    write(parent.with_name("none.yaml"), "extends: base\nabstract: true\nnodes: []\n")
    text = VARIANT.replace("extends: base", f"extends: {base}") + RUNTIME + f"nodes: {case.nodes}\n"
    write(parent, text)
    with pytest.raises(DescriptionError) as raised:
        relock.relock([str(parent)])
    said = str(raised.value)
    assert said.startswith(f"{parent}:12: {case.key}"), said
    assert re.search(case.says, said), said
    assert "\n" not in said
    assert "s3cret" not in said + str(raised.value.hint)
    assert not list(parent.parent.rglob("nodes.json")), "nothing is written"
