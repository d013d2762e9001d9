"""Python packages above those of a runtime: resolved onto what is locked, which no addition changes.

The resolver is the real uv, over a folder of empty wheels.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from descriptions import VARIANT, write
from wheels import Shelf

from podkiln.config import variant as variants
from podkiln.errors import DescriptionError, LockError
from podkiln.lock import additions, locations, reader
from podkiln.lock.resolve import relock

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
nodes: []
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """An index with the runtime's packages, foo and bar, and others that need another bar, or none."""
    shelf = Shelf(tmp_path / "shelf")
    shelf.add("foo", "1.0", requires=("bar<2",))
    shelf.add("bar", "1.0")
    shelf.add("bar", "0.5")
    shelf.add("uv", "0.9")
    shelf.add("tall", "1.0", requires=("bar", "brick"))
    shelf.add("brick", "1.0")
    shelf.add("short", "1.0", requires=("bar<1",))
    for key, value in shelf.environment.items():
        monkeypatch.setenv(key, value)
    return shelf


@pytest.fixture
def parent(shelf: Shelf, tmp_path: Path) -> Path:
    """A runtime of one's own, locked."""
    write(tmp_path / "mine.in", "foo\n")
    path = write(tmp_path / "mine.yaml", VARIANT + RUNTIME)
    relock.relock([str(path)])
    return path


def adding(parent: Path, *asked: str, name: str = "mine") -> Path:
    """The variant with additions."""
    text = VARIANT + RUNTIME.replace("    layers", f"    add: {json.dumps(asked)}\n    layers")
    return write(parent.with_name(f"{name}.yaml"), text)


def locked(path: Path) -> dict[str, str]:
    folder = path.with_suffix(".locks") / "additions" / "mine-1"
    return {str(each.relative_to(folder)): each.read_text() for each in folder.rglob("*") if each.is_file()}


def shared(path: Path) -> dict[Path, bytes]:
    folder = path.with_suffix(".locks") / "mine-1"
    return {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_what_comes_is_locked_with_hashes_and_what_is_there_stays(parent: Path, shelf: Shelf) -> None:
    before = shared(parent)
    path = adding(parent, "tall")
    relock.relock([str(path)])
    text = locked(path)["additions.txt"]
    assert [line.split(" ")[0] for line in text.splitlines() if "==" in line] == ["brick==1.0", "tall==1.0"]
    assert text.count("--hash=sha256:") == 2
    assert shared(path) == before
    assert relock.relock([str(path)]).changed == ()
    assert relock.check([str(path)]) == [], "the weights' lock is the shipped one"


def test_the_digest_of_the_lock_covers_what_is_added(parent: Path) -> None:
    digests = set()
    for asked in ((), ("brick",), ("tall",)):
        path = adding(parent, *asked)
        relock.relock([str(path)])
        digests.add(reader.read(variants.load(str(path)), ()).digest)
    assert len(digests) == 3


def test_a_pin_is_kept_until_an_upgrade_is_asked_for(parent: Path, shelf: Shelf) -> None:
    path = adding(parent, "brick")
    relock.relock([str(path)])
    before = shared(path)
    shelf.add("brick", "2.0")
    assert relock.relock([str(path)]).changed == ()
    write(path, adding(parent, "brick", "tall").read_text())
    relock.relock([str(path)])
    assert "brick==1.0" in locked(path)["additions.txt"]
    relock.relock([str(path)], ["additions"])
    assert "brick==2.0" in locked(path)["additions.txt"]
    shelf.add("brick", "3.0")
    relock.relock([str(path)], ["brick"])
    assert "brick==3.0" in locked(path)["additions.txt"]
    assert shared(path) == before, "an upgrade of what is added leaves the runtime alone"


def test_what_is_added_no_more_is_locked_no_more(parent: Path) -> None:
    path = adding(parent, "tall")
    relock.relock([str(path)])
    changed = relock.relock([str(adding(parent))]).changed
    assert {each.name for each in changed} == {"additions.json", "additions.txt"}
    assert locked(path) == {}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("short", "short needs bar 0.5, and the layers of the runtime have bar 1.0, which stay as they are."),
        ("bar<1", "bar<1 would change bar 1.0, which the layers of the runtime have."),
        ("bar", "bar is there already: the layers of the runtime have 1.0."),
        ("nothing-of-the-kind", "the package index has no package 'nothing-of-the-kind'."),
        ("tall==9", "tall==9 cannot be had: Because there is no version of tall==9"),
    ],
)
def test_what_does_not_go_with_the_runtime_is_one_sentence_at_its_line(
    asked: str, says: str, parent: Path
) -> None:
    path = adding(parent, "brick", asked)
    with pytest.raises(DescriptionError) as raised:
        relock.relock([str(path)])
    assert f"{path}:10: runtime.python.add[1]: {says}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert locked(path) == {}


def test_additions_that_only_together_cannot_be_had(parent: Path, shelf: Shelf) -> None:
    shelf.add("low", "1.0", requires=("brick<2",))
    shelf.add("high", "1.0", requires=("brick>=2",))
    shelf.add("brick", "2.0")
    with pytest.raises(DescriptionError, match=r"runtime\.python\.add: these packages do not go together: "):
        relock.relock([str(adding(parent, "low", "high"))])


def test_each_runtime_has_its_own(parent: Path, shelf: Shelf) -> None:
    """As those of two CUDA releases: to lock for one leaves the other as it is."""
    path = adding(parent, "tall")
    relock.relock([str(path)])
    before = locked(path)
    other = path.read_text()
    path.write_text(other.replace("name: mine-1", "name: mine-2"))
    relock.relock([str(path)])
    assert locked(path) == before
    assert relock.check([str(path)]) == []
    path.write_text(other)
    assert relock.check([str(path)]) == []


HASHED_AGAIN: dict[str, Callable[[str], str]] = {
    "tall==1.0": lambda text: text.replace("tall==", "taller=="),
    "brick==1.0": lambda text: text.replace("brick==", "bar=="),
    "an option": lambda text: "--extra-index-url http://example.com/\n" + text,
    "a URL": lambda text: "other @ http://example.com/x.whl\n" + text,
    "fewer": lambda text: text,
}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("unlocked", "runtime.python.add is not locked: there is no "),
        ("asked", "runtime.python.add has changed since it was locked."),
        ("runtime", "runtime.python.add was locked for other Python layers than the runtime has now."),
        ("by hand", "additions.txt was changed by hand: its sha256 is not the locked one."),
        ("missing", "additions.txt is missing."),
        # Hashed again, as after a merge.
        ("tall==1.0", "additions.txt lacks tall, which is added."),
        ("brick==1.0", "additions.txt has bar 1.0, which the layers of the runtime have as 1.0."),
        ("an option", "additions.txt:1: a lock has versions and hashes alone."),
        ("a URL", "additions.txt:1: a lock has versions and hashes alone."),
        ("fewer", "additions.txt has other packages than the 3 that are locked."),
    ],
)
def test_a_lock_that_does_not_fit_is_noticed_by_the_build_and_by_check(
    damage: str, says: str, parent: Path, shelf: Shelf
) -> None:
    path = adding(parent, "tall")
    if damage != "unlocked":
        relock.relock([str(path)])
    folder = locations.python_additions_folder(variants.load(str(path)))
    if damage == "asked":
        adding(parent, "brick")
    if damage == "runtime":
        shelf.add("foo", "1.1", requires=("bar<2",))
        kept = locked(path)
        relock.relock([str(path)], ["foo"])
        for name, text in kept.items():
            (folder / name).write_text(text)
    if damage == "by hand":
        with (folder / additions.REQUIREMENTS).open("a") as file:
            file.write("# mine\n")
    if found := HASHED_AGAIN.get(damage):
        text = found((folder / additions.REQUIREMENTS).read_text())
        (folder / additions.REQUIREMENTS).write_text(text)
        told = json.loads((folder / additions.FILE).read_text())
        told["layer"] |= {"sha256": sha256(text.encode()).hexdigest()}
        if damage == "fewer":
            told["layer"]["packages"] += 1
        (folder / additions.FILE).write_text(json.dumps(told))
    if damage == "missing":
        (folder / additions.REQUIREMENTS).unlink()
    described = variants.load(str(path))
    with pytest.raises(LockError) as raised:
        reader.read(described, ())
    assert says in str(raised.value)
    assert f"`./build.py lock --variant {path}`" in (raised.value.hint or "")
    assert any(says in each for each in relock.check([str(path)]))
    relock.relock([str(path)])
    assert reader.read(described, ()).additions
