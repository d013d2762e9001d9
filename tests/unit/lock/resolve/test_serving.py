"""The packages with which an image takes jobs: for a runtime's layers alone, whatever lies above them.

The resolver is the real uv, over a folder of empty wheels; `serve: runpod` asks for `tall` here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from descriptions import VARIANT, write
from unit.lock.resolve.test_additions import RUNTIME, parent, shelf

from podkiln.config import serving
from podkiln.config import variant as variants
from podkiln.errors import DescriptionError, LockError
from podkiln.lock import reader
from podkiln.lock.resolve import relock

if TYPE_CHECKING:
    from pathlib import Path

    from wheels import Shelf

__all__ = ["parent", "shelf"]
RUNPOD = "serve: runpod\n"


@pytest.fixture(autouse=True)
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The requirements file of the way to serve."""
    (tmp_path / "variants" / "python").mkdir(parents=True)
    monkeypatch.setattr(serving, "ROOT", tmp_path)
    return write(tmp_path / "variants" / "python" / "runpod.in", "# why\ntall>=1\n")


def worker(parent: Path, more: str = RUNPOD, runtime: str = RUNTIME) -> Path:
    return write(parent, VARIANT + more + runtime)


def locked(path: Path) -> Path:
    return path.with_suffix(".locks") / "serve" / "mine-1"


def test_they_are_locked_beside_those_of_the_runtime_which_stay(parent: Path) -> None:
    before = {
        each: each.read_bytes()
        for each in parent.with_suffix(".locks").rglob("*")
        if each.is_file() and each.name != "weights.json"
    }
    path = worker(parent)
    changed = relock.relock([str(path)]).changed
    assert {each.name for each in changed} == {"runpod.txt", "runpod.json"}
    text = (locked(path) / "runpod.txt").read_text()
    assert [line.split(" ")[0] for line in text.splitlines() if "==" in line] == ["brick==1.0", "tall==1.0"]
    assert text.count("--hash=sha256:") == 2
    assert all(each.read_bytes() == content for each, content in before.items())
    assert relock.relock([str(path)]).changed == ()
    assert relock.check([str(path)]) == []


def test_what_the_variant_adds_itself_has_no_part_in_them(parent: Path, shelf: Shelf) -> None:
    """An addition may even have another version: the worker's packages lie apart."""
    shelf.add("brick", "0.5")
    relock.relock([str(worker(parent))])
    before = (locked(parent) / "runpod.json").read_bytes()
    adding = RUNTIME.replace("    layers", '    add: ["brick<1"]\n    layers')
    path = worker(parent, runtime=adding)
    relock.relock([str(path)])
    assert (locked(parent) / "runpod.json").read_bytes() == before
    lock = reader.read(variants.load(str(path)), ())
    assert lock.serving
    assert lock.serving.pins() == {"brick": "1.0", "tall": "1.0"}
    assert "brick==0.5" in lock.additions.requirements if lock.additions else False


def test_the_digest_of_the_lock_covers_them(parent: Path) -> None:
    digests = set()
    for more in ("", RUNPOD, "serve: http\n"):
        path = worker(parent, more)
        relock.relock([str(path)])
        digests.add(reader.read(variants.load(str(path)), ()).digest)
    assert len(digests) == 2, "http needs no packages"


def test_an_upgrade_is_asked_for_by_name(parent: Path, shelf: Shelf) -> None:
    path = worker(parent)
    relock.relock([str(path)])
    shelf.add("tall", "1.1", requires=("bar", "brick"))
    assert relock.relock([str(path)]).changed == ()
    relock.relock([str(path)], ["tall"])
    assert "tall==1.1" in (locked(path) / "runpod.txt").read_text()


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("unlocked", "serve: runpod is not locked: there is no "),
        ("asked", "serve: runpod was locked for something else than"),
        ("changed", "was changed by hand: its sha256 is not the locked one."),
    ],
)
def test_a_build_refuses_a_lock_that_does_not_fit(parent: Path, asked: Path, case: str, says: str) -> None:
    path = worker(parent)
    if case != "unlocked":
        relock.relock([str(path)])
    if case == "asked":
        asked.write_text("brick\n")
    if case == "changed":
        with (locked(path) / "runpod.txt").open("a") as file:
            file.write("# by hand\n")
    with pytest.raises(LockError) as refused:
        reader.read(variants.load(str(path)), ())
    assert says in str(refused.value)
    assert any(says in each for each in relock.check([str(path)]))


def test_a_damaged_one_is_said(parent: Path) -> None:
    path = worker(parent)
    relock.relock([str(path)])
    file = locked(path) / "runpod.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "asked": 1}))
    with pytest.raises(LockError, match=r"runpod\.json"):
        reader.read(variants.load(str(path)), ())


def test_what_does_not_go_with_the_runtime_is_blamed_on_the_key(parent: Path, asked: Path) -> None:
    asked.write_text("short\n")
    with pytest.raises(DescriptionError, match=r"serve: what `serve: runpod` asks for does not go with"):
        relock.relock([str(worker(parent))])


def test_a_way_that_there_is_not_is_refused(parent: Path) -> None:
    with pytest.raises(DescriptionError, match="serve"):
        variants.load(str(worker(parent, "serve: lambda\n")))
