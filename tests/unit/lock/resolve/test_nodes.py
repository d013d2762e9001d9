"""The packages of custom nodes: onto those of the runtime, dealt out in the nodes' order, and kept.

The resolver is the real uv, over a folder of empty wheels.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from descriptions import SHA, VARIANT, write
from wheels import Shelf

from podkiln.config import import_folders
from podkiln.config import variant as variants
from podkiln.errors import LockError
from podkiln.lock import locations, nodes, reader
from podkiln.lock.resolve import node_packages, relock, upgrades

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RUNTIME = """\
runtime:
  name: mine-1
  python:
    requirements: mine.in
    layers: [{name: all, why: all of them, packages: ["*"]}]
  jupyter: null
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """An index with the runtime's packages, foo and bar, and what nodes ask for."""
    shelf = Shelf(tmp_path / "shelf")
    shelf.add("foo", "1.0", requires=("bar<2",))
    shelf.add("bar", "1.0")
    shelf.add("uv", "0.9")
    shelf.add("emoji", "2.0")
    shelf.add("tall", "1.0", requires=("bar", "brick"))
    shelf.add("wide", "1.0", requires=("brick", "mortar"))
    shelf.add("brick", "1.0")
    shelf.add("mortar", "1.0")
    shelf.add("seeing", "1.0", requires=("opencv-python",))
    for name in ("opencv-python", "opencv-python-headless", "opencv-contrib-python-headless"):
        shelf.add(name, "5.0")
    for name in ("onnxruntime", "onnxruntime-gpu"):
        shelf.add(name, "1.24")
    for key, value in shelf.environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(node_packages, "_answers", {})
    write(tmp_path / "mine.in", "foo\n")
    return shelf


def entry(name: str, *asks: str, more: str = "") -> str:
    asked = f", python: {{install: {json.dumps(asks)}}}" if asks else ""
    pin = f"repo: https://github.com/x/{name.title()}, commit: {SHA[:40]}, tree: {SHA[:40]}"
    return f"  - {name}: {{{pin}{asked}{more}}}\n"


def having(shelf: Shelf, *entries: str, name: str = "mine", more: str = "") -> Path:
    """A variant with nodes, beside the index."""
    text = VARIANT + RUNTIME + more + "nodes:\n" + "".join(entries)
    return write(shelf.folder.with_name(f"{name}.yaml"), text)


def locked(path: Path) -> dict[str, list[str]]:
    """The packages of each node that brings some, in order."""
    found = nodes.read_at(path.with_suffix(".locks") / "nodes" / "mine-1")
    assert found
    texts = found.requirements()
    return {
        name: [line.split(" ")[0] for line in text.splitlines() if "==" in line]
        for name, text in texts.items()
    }


def files(path: Path) -> dict[str, str]:
    folder = path.with_suffix(".locks")
    return {str(each.relative_to(folder)): each.read_text() for each in folder.rglob("*") if each.is_file()}


def test_a_package_lies_with_the_first_node_that_needs_it_and_all_have_hashes(shelf: Shelf) -> None:
    path = having(shelf, entry("a", "tall", "bar"), entry("b"), entry("c", "wide", "emoji>=2"))
    relock.relock([str(path)])
    assert locked(path) == {"a": ["brick==1.0", "tall==1.0"], "c": ["emoji==2.0", "mortar==1.0", "wide==1.0"]}
    text = files(path)["nodes/mine-1/node-c.txt"]
    assert text.count("--hash=sha256:") == 3
    assert "mine" not in text.partition("\n")[0].replace("the node c", "")
    assert relock.relock([str(path)]).changed == ()
    assert relock.check([str(path)]) == []


def test_a_node_more_changes_no_file_before_its_own_and_not_the_runtime(shelf: Shelf) -> None:
    path = having(shelf, entry("a", "tall"))
    relock.relock([str(path)])
    before = files(path)
    having(shelf, entry("a", "tall"), entry("b", "wide"))
    changed = relock.relock([str(path)]).changed
    assert {each.name for each in changed} == {"node-b.txt", "nodes.json"}
    after = files(path)
    assert {name for name in before if before[name] != after[name]} == {"nodes/mine-1/nodes.json"}


def test_variants_that_begin_with_the_same_nodes_have_the_same_files_for_them(shelf: Shelf) -> None:
    """Also where the one with more is locked first, when a newer version has come."""
    one = having(shelf, entry("a", "tall"), name="one")
    more = having(shelf, entry("a", "tall"), entry("b", "wide", "emoji"), name="more")
    relock.relock([str(more), str(one)])
    name = "nodes/mine-1/node-a.txt"
    assert files(one)[name] == files(more)[name]


def test_the_order_of_the_nodes_is_that_of_their_layers(shelf: Shelf) -> None:
    path = having(shelf, entry("c", "wide"), entry("a", "tall"))
    relock.relock([str(path)])
    assert locked(path) == {"c": ["brick==1.0", "mortar==1.0", "wide==1.0"], "a": ["tall==1.0"]}
    having(shelf, entry("a", "tall"), entry("c", "wide"))
    with pytest.raises(LockError, match="not the same, or not in the same order"):
        reader.read(variants.load(str(path)), ())
    relock.relock([str(path)])
    assert list(locked(path)) == ["a", "c"]


def test_a_pin_is_kept_until_an_upgrade_is_asked_for(shelf: Shelf) -> None:
    path = having(shelf, entry("a", "brick"))
    relock.relock([str(path)])
    runtime = files(path)["mine-1/python/all.txt"]
    shelf.add("brick", "2.0")
    having(shelf, entry("a", "brick"), entry("b", "emoji"))
    relock.relock([str(path)])
    assert locked(path)["a"] == ["brick==1.0"]
    relock.relock([str(path)], ["brick"])
    assert locked(path)["a"] == ["brick==2.0"]
    shelf.add("brick", "3.0")
    node_packages._answers.clear()  # as in a run of its own
    relock.relock([str(path)], ["nodes"])
    assert locked(path)["a"] == ["brick==3.0"]
    assert files(path)["mine-1/python/all.txt"] == runtime


def test_an_environment_of_its_own_has_what_differs_from_the_runtime_and_touches_nothing_else(
    shelf: Shelf,
) -> None:
    shelf.add("bar", "0.5")
    shelf.add("old", "1.0", requires=("bar<1", "foo", "brick<2"))
    apart = entry("b", "old", more="").replace("python: {", "python: {venv: MINE_PYTHON, ")
    path = having(shelf, entry("a", "brick"), entry("c", "wide"))
    relock.relock([str(path)])
    before = files(path)
    shelf.add("brick", "2.0")
    path = having(shelf, entry("a", "brick"), apart, entry("c", "wide"))
    changed = relock.relock([str(path)]).changed
    assert {each.name for each in changed} == {"node-b.txt", "nodes.json"}, "no file of another node"
    assert locked(path)["b"] == ["bar==0.5", "brick==1.0", "old==1.0"], "foo is the runtime's"
    assert files(path)["mine-1/python/all.txt"] == before["mine-1/python/all.txt"]
    found = reader.read(variants.load(str(path)), ())
    assert found.pins_with_nodes()["bar"] == "1.0", "what ComfyUI sees"
    assert "old" not in found.python_packages()
    assert relock.check([str(path)]) == []
    shelf.add("old", "1.1", requires=("bar<1", "brick<2"))
    node_packages._answers.clear()
    relock.relock([str(path)], ["brick"])
    assert "old==1.0" in locked(path)["b"], "a pin is kept here too"
    relock.relock([str(path)], ["old"])
    assert locked(path)["b"] == ["bar==0.5", "brick==1.0", "old==1.1"]
    having(shelf, entry("a", "brick"), entry("b", "wide"), entry("c"))
    assert any("Python packages of the node b have changed" in each for each in relock.check([str(path)]))


def test_what_an_environment_of_its_own_lacks_is_noticed(shelf: Shelf) -> None:
    apart = entry("b", "emoji", "foo").replace("python: {", "python: {venv: MINE_PYTHON, ")
    path = having(shelf, apart)
    relock.relock([str(path)])
    assert locked(path) == {"b": ["emoji==2.0"]}
    folder = path.with_suffix(".locks") / "nodes" / "mine-1"
    hashed_again(folder, "b", lambda text: text.replace("emoji==", "smiley=="))
    assert any("lacks emoji, and the node b asks for `emoji`" in each for each in relock.check([str(path)]))


def test_a_node_of_this_repository_is_locked_by_its_place(shelf: Shelf) -> None:
    """As podkiln's own code is: what lies there is taken as it is."""
    own = "  - own: {source: scripts/nodes/mvinverse, python: {install: [emoji]}}\n"
    path = having(shelf, own)
    relock.relock([str(path)])
    (row,) = json.loads(files(path)["nodes/mine-1/nodes.json"])["nodes"]
    assert (row["source"], row["repo"], row["commit"], row["tree"]) == (
        "scripts/nodes/mvinverse",
        None,
        None,
        None,
    )
    assert relock.relock([str(path)]).changed == ()
    having(shelf, own.replace("mvinverse", "infcam"))
    assert any("described with another commit or tree" in each for each in relock.check([str(path)]))
    having(shelf, entry("own", "emoji"))
    assert any("described with another commit or tree" in each for each in relock.check([str(path)]))
    (path.with_suffix(".locks") / "nodes/mine-1/nodes.json").write_text(
        files(path)["nodes/mine-1/nodes.json"].replace('"scripts/nodes/mvinverse"', "null")
    )
    with pytest.raises(LockError, match="own has either repo and commit, or source"):
        relock.check([str(path)])


@pytest.mark.parametrize("name", ["a", "brick"])
def test_an_upgrade_reaches_all_that_have_a_name(
    name: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of JupyterLab's environment and of a node, and a node that is called as its package."""
    monkeypatch.setattr(upgrades, "node", lambda *_: None)
    shelf.add("lab", "1.0", requires=("brick",))
    write(shelf.folder.with_name("lab.in"), "lab\n")
    path = having(shelf, entry(name, "brick"))
    write(path, path.read_text().replace("jupyter: null", "jupyter: lab.in"))
    relock.relock([str(path)])
    shelf.add("brick", "2.0")
    relock.relock([str(path)], ["brick"])
    assert locked(path)[name] == ["brick==2.0"]
    assert "brick==2.0" in files(path)["mine-1/jupyter.txt"]


@pytest.mark.parametrize(
    ("asks", "comes"),
    [
        ((("opencv-python",),), ["opencv-contrib-python-headless"]),
        ((("opencv-python", "seeing"),), ["opencv-contrib-python-headless", "seeing"]),
        # A dependency: none of the lines names it.
        ((("seeing",),), ["opencv-contrib-python-headless", "seeing"]),
        ((("seeing",), ("opencv-python-headless",)), ["opencv-contrib-python-headless", "seeing"]),
        ((("onnxruntime-gpu",), ("onnxruntime",)), ["onnxruntime"]),
    ],
)
def test_one_package_owns_a_folder(asks: tuple[tuple[str, ...], ...], comes: list[str], shelf: Shelf) -> None:
    path = having(shelf, *(entry(f"n{at}", *lines) for at, lines in enumerate(asks)))
    relock.relock([str(path)])
    found = [line.partition("==")[0] for lines in locked(path).values() for line in lines]
    assert sorted(found) == comes
    assert import_folders.contested(found) is None
    assert relock.check([str(path)]) == []


def test_what_the_runtime_has_owns_its_folder(shelf: Shelf) -> None:
    write(shelf.folder.with_name("mine.in"), "foo\nopencv-python-headless\n")
    path = having(shelf, entry("a", "seeing", "opencv-contrib-python-headless"))
    relock.relock([str(path)])
    assert locked(path) == {"a": ["seeing==1.0"]}


def test_a_variant_with_the_nodes_of_another_uses_its_lock(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one's own that extends a shipped one: it needs no lock of its own."""
    first = having(shelf, entry("a", "tall"), name="first")
    relock.relock([str(first)])
    house = tmp_path / "locks"
    (house / "nodes/first").mkdir(parents=True)
    (first.with_suffix(".locks") / "nodes/mine-1").rename(house / "nodes/first/mine-1")
    second = having(shelf, entry("a", "tall"), name="second")
    (first.with_suffix(".locks") / "mine-1").rename(house / "mine-1")
    monkeypatch.setattr(locations, "LOCKS", house)
    assert relock.check([str(second)]) == [f"There is no lock {house / 'weights.json'}."]
    monkeypatch.setattr(relock, "_relock_weights", lambda *_: [])
    monkeypatch.setattr(relock, "_relock_served", lambda *_: [])
    monkeypatch.setattr(locations, "user_lock_dir", lambda _: None)  # both are shipped ones
    shelf.add("brick", "2.0")
    changed = relock.relock([str(second)], ["nodes"]).changed
    assert [each.relative_to(house / "nodes").parts[0] for each in changed] == ["first", "first"]
    having(shelf, entry("a", "tall", "emoji"), name="second")
    found = relock.check([str(second)])
    assert found[0].startswith("second: the custom nodes (a) are not locked: there is no ")


def test_what_is_added_is_resolved_above_the_nodes(shelf: Shelf) -> None:
    more = RUNTIME.replace("    layers", '    add: ["wide"]\n    layers')
    path = write(shelf.folder.with_name("mine.yaml"), VARIANT + more + "nodes:\n" + entry("a", "tall"))
    relock.relock([str(path)])
    text = files(path)["additions/mine-1/additions.txt"]
    assert [line.split(" ")[0] for line in text.splitlines() if "==" in line] == ["mortar==1.0", "wide==1.0"]
    write(path, path.read_text() + entry("b", "mortar"))
    relock.relock([str(path)])
    assert relock.check([str(path)]) == []
    assert "mortar" not in files(path)["additions/mine-1/additions.txt"]


def hashed_again(folder: Path, name: str, change: Callable[[str], str], packages: int | None = None) -> None:
    """Change a requirements file, and what nodes.json says of it, as after a merge."""
    path = folder / f"node-{name}.txt"
    path.write_text(change(path.read_text()))
    told = json.loads((folder / nodes.FILE).read_text())
    (row,) = (each for each in told["nodes"] if each["id"] == name)
    row["packages"]["sha256"] = sha256(path.read_bytes()).hexdigest()
    row["packages"]["packages"] = packages or row["packages"]["packages"]
    (folder / nodes.FILE).write_text(json.dumps(told))


HASH = f" \\\n    --hash=sha256:{'3' * 64}\n"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("unlocked", "the custom nodes (a, b) are not locked: there is no "),
        ("commit", "the node a is described with another commit or tree than is locked."),
        ("tree", "the node a is described with another commit or tree than is locked."),
        ("part", "the node b is described with other submodules, paths or code than are locked."),
        ("asked", "the Python packages of the node a have changed since they were locked."),
        ("runtime", "the custom nodes were locked for other Python layers than the runtime has now."),
        ("by hand", "node-a.txt was changed by hand: its sha256 is not the locked one."),
        ("missing", "node-a.txt is missing."),
        ("a URL", "node-a.txt:1: a lock has versions and hashes alone."),
        ("lacking", "lacks tall, and the node a asks for `tall`."),
        ("of the runtime", "node-a.txt has bar 1.0, which the runtime has as 1.0."),
        ("twice", "node-b.txt has brick 1.0, which the node a brings already."),
        ("two owners", "opencv-contrib-python-headless and opencv-python are locked, and both unpack into"),
    ],
)
def test_a_lock_that_does_not_fit_is_noticed_by_the_build_and_by_check(
    damage: str, says: str, shelf: Shelf
) -> None:
    sub = f"repo: https://github.com/x/p, commit: {SHA[:40]}, tree: {SHA[:40]}"
    b = entry("b", "opencv-python", more=f", submodules: [{{path: p, {sub}}}]")
    path = having(shelf, entry("a", "tall"), b)
    relock.relock([str(path)])
    if damage == "unlocked":
        (path.with_suffix(".locks") / "nodes/mine-1/nodes.json").unlink()
    folder = path.with_suffix(".locks") / "nodes" / "mine-1"
    other = SHA[:40].replace("0", "f", 1)
    if damage in {"commit", "tree"}:
        having(shelf, entry("a", "tall").replace(f"{damage}: {SHA[:40]}", f"{damage}: {other}"), b)
    if damage == "part":
        having(shelf, entry("a", "tall"), b.replace(f"x/p, commit: {SHA[:40]}", f"x/p, commit: {other}"))
    if damage == "asked":
        having(shelf, entry("a", "tall", "emoji"), b)
    if damage == "runtime":
        shelf.add("foo", "1.1", requires=("bar<2",))
        kept = {each: each.read_bytes() for each in folder.iterdir()}
        relock.relock([str(path)], ["foo"])
        for file, content in kept.items():
            file.write_bytes(content)
    if damage == "by hand":
        (folder / "node-a.txt").write_text("# mine\n")
    if damage == "missing":
        (folder / "node-a.txt").unlink()
    changes: dict[str, tuple[str, Callable[[str], str], int | None]] = {
        "a URL": ("a", lambda text: "x @ http://example.com/x.whl\n" + text, None),
        "lacking": ("a", lambda text: text.replace("tall==", "taller=="), None),
        "of the runtime": ("a", lambda text: text.replace("brick==", "bar=="), None),
        "twice": ("b", lambda text: f"{text}brick==1.0{HASH}", 2),
        "two owners": ("b", lambda text: f"{text}opencv-python==5.0{HASH}", 2),
    }
    if damage in changes:
        name, change, packages = changes[damage]
        hashed_again(folder, name, change, packages)
    described = variants.load(str(path))
    with pytest.raises(LockError) as raised:
        reader.read(described, ())
    assert says in str(raised.value)
    assert f"`./build.py lock --variant {path}`" in (raised.value.hint or "")
    assert any(says in each for each in relock.check([str(path)]))
    relock.relock([str(path)])
    assert reader.read(described, ()).nodes


def test_nodes_that_are_there_no_more_are_locked_no_more(shelf: Shelf) -> None:
    path = having(shelf, entry("a", "tall"))
    relock.relock([str(path)])
    write(path, VARIANT + RUNTIME + "nodes: []\n")
    assert {each.name for each in relock.relock([str(path)]).changed} == {"node-a.txt", "nodes.json"}
    assert relock.check([str(path)]) == []


def test_the_digest_of_the_lock_covers_the_nodes(shelf: Shelf) -> None:
    digests = set()
    for nodes_of in ((), (entry("a"),), (entry("a", "tall"),), (entry("a", "tall"), entry("b"))):
        path = (
            having(shelf, *nodes_of)
            if nodes_of
            else write(shelf.folder.with_name("mine.yaml"), VARIANT + RUNTIME + "nodes: []\n")
        )
        relock.relock([str(path)])
        digests.add(reader.read(variants.load(str(path)), ()).digest)
    assert len(digests) == 4
