"""Reading and checking locks: strictly, and without a network."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from descriptions import FILE, SHA, VARIANT, model, variant, write

from podkiln.config import catalog, document
from podkiln.config import variant as variants
from podkiln.config.model import Model, ModelFile
from podkiln.errors import LockError
from podkiln.lock import drift, locations, reader, requirements, schema
from podkiln.lock.resolve import relock
from podkiln.lock.schema import Lock, LockedFile, WeightsLock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant

# --- reading


@pytest.mark.parametrize("name", variants.names())
def test_each_shipped_variant_has_a_lock_that_fits(name: str) -> None:
    described = variants.load(name)
    offered = catalog.offered(described, catalog.load())
    read = reader.read(described, offered)
    layers = {f"{each.name}.txt" for each in described.spec.runtime.python.layers}
    assert set(read.requirements()) == layers | {"jupyter.txt"}
    for offer in offered:
        assert len(read.weights[offer.id]) == len(offer.model.files)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A user's variant with a copy of the shipped runtime's lock beside it."""
    path = write(tmp_path / "mine.yaml", VARIANT)
    name = variants.load(str(path)).spec.runtime.name
    shutil.copytree(locations.LOCKS / name, tmp_path / "mine.locks" / name)
    return path


def private(path: Path) -> tuple[LoadedVariant, Path]:
    described = variants.load(str(path))
    folder, _ = locations.folders(described)
    assert folder.is_relative_to(path.parent)
    return described, folder


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("base_image", "debian:sid", "runtime.base.image is debian:trixie-slim, the lock says debian:sid"),
        ("base_digest", f"sha256:{SHA}", "runtime.base.digest"),
        ("epoch", 5, "runtime.epoch"),
        ("comfyui_repo", "https://x/y", "runtime.comfyui.repo"),
        ("comfyui_commit", "0" * 40, "runtime.comfyui.commit"),
        ("comfyui_tree", "0" * 40, "runtime.comfyui.tree"),
        ("python", "3.12", "runtime.python.version is 3.13, the lock says 3.12"),
        ("inputs", f"sha256:{SHA}", "the Python requirements or layers have changed"),
    ],
)
def test_whatever_is_not_as_described_is_drift(key: str, value: Any, says: str, copy: Path) -> None:
    described, folder = private(copy)
    assert drift.find_drift(described, Lock(folder, schema.read_runtime(folder), {})) == []
    file = folder / "runtime.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    (told,) = drift.find_drift(described, Lock(folder, schema.read_runtime(folder), {}))
    assert says in told
    with pytest.raises(LockError, match="The lock does not fit the description") as raised:
        reader.read(described, [])
    assert raised.value.exit_code == 4
    named = f"`./build.py lock --variant {copy}`"  # without, it would lock the shipped variants
    assert raised.value.hint == requirements.RELOCK.replace("`./build.py lock`", named)
    assert reader.read(described, [], check=False)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 2}', "\udcff"])
def test_a_lock_that_is_damaged_is_one_sentence(text: str, copy: Path) -> None:
    described, folder = private(copy)
    (folder / "runtime.json").write_text(text, errors="surrogateescape")
    with pytest.raises(LockError, match="cannot be read") as raised:
        reader.read(described, [])
    assert "\n" not in str(raised.value)


ODD: dict[str, Callable[[Path], None]] = {
    "folder": lambda path: path.mkdir(),
    "fifo": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("none"),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_users_own_lock_that_is_no_file_is_damage_and_not_absence(kind: str, copy: Path) -> None:
    """Else the shipped one were used in its place, and nobody would know."""
    described, folder = private(copy)
    ODD[kind](folder.parent / "weights.json")
    for read in (
        lambda: reader.read(described, []),
        lambda: relock.check([str(copy)]),
        lambda: relock.relock([str(copy)]),
    ):
        with pytest.raises(LockError, match=r"weights\.json cannot be read") as raised:
            read()
        assert f"`./build.py lock --variant {copy}`" in str(raised.value.hint)


def test_a_file_in_place_of_the_folder_of_a_users_own_locks_is_damage(copy: Path) -> None:
    described, folder = private(copy)
    shutil.rmtree(folder.parent)
    folder.parent.write_text("")
    for read in (
        lambda: reader.read(described, []),
        lambda: relock.check([str(copy)]),
        lambda: relock.relock([str(copy)]),
    ):
        with pytest.raises(LockError, match="cannot be read: Not a directory"):
            read()


def test_a_lock_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", variant("runtime: {name: other}\n"))
    with pytest.raises(LockError, match=r"There is no lock .*/other/runtime.json") as raised:
        reader.read(variants.load(str(path)), [])
    assert "lock" in str(raised.value.hint)


def test_the_digest_of_a_lock_changes_with_any_pin() -> None:
    described = variants.load("baked")
    read = reader.read(described, catalog.offered(described, catalog.load()))
    other = Lock(read.folder, read.runtime.model_copy(update={"epoch": 5}), read.weights)
    fewer = Lock(read.folder, read.runtime, {})
    assert len({read.digest, other.digest, fewer.digest}) == 3


# --- weights


def described_file(**facts: Any) -> ModelFile:
    plain = {"huggingface": "o/r", "path": "m.bin", "folder": "vae", "sha256": "unresolved"}
    return ModelFile.model_validate({**plain, **facts})


def locked_file(**facts: Any) -> LockedFile:
    plain = {"destination": "vae/m.bin", "source": "huggingface:o/r/m.bin", "revision": None}
    return LockedFile.model_validate({**plain, "size": None, "sha256": None, **facts})


FOUND = locked_file(revision="a" * 40, size=5, sha256=SHA)


@pytest.mark.parametrize(
    ("described", "found", "expected"),
    [
        (described_file(), None, locked_file()),
        (described_file(), FOUND, FOUND),
        (described_file(sha256=SHA), FOUND, FOUND),
        (described_file(size=5, sha256=SHA, revision="a" * 40), None, FOUND),
        (
            described_file(sha256="f" * 64),
            FOUND,
            locked_file(sha256="f" * 64),
        ),  # what is described wins, alone
        (described_file(size=6), FOUND, locked_file(size=6)),
        (described_file(revision="b" * 40), FOUND, locked_file(revision="b" * 40)),
        (described_file(), FOUND.model_copy(update={"source": "url"}), locked_file()),
    ],
)
def test_a_description_comes_before_what_was_found(
    described: ModelFile, found: LockedFile | None, expected: LockedFile
) -> None:
    assert schema.merged(described, found) == expected


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (described_file(), "huggingface:o/r/m.bin"),
        (
            described_file(huggingface=None, path=None, civitai={"model": 1, "version": 2}, name="a"),
            "civitai:1@2",
        ),
        (described_file(huggingface=None, path=None, url="https://h/a.bin", sha256=SHA), "https://h/a.bin"),
        (described_file(huggingface=None, path=None, local="a.bin"), "local:a.bin"),
    ],
)
def test_a_source_in_one_word(file: ModelFile, name: str) -> None:
    assert schema.source_name(file) == name


def weights_lock(folder: Path, **models: tuple[LockedFile, ...]) -> Path:
    return write(folder / "weights.json", WeightsLock(models=models).model_dump_json())


MINE = locked_file(
    destination="checkpoints/model.safetensors", source="huggingface:org/repo/model.safetensors"
)


@pytest.mark.parametrize(
    ("locked", "says"),
    [
        ({"mine": (MINE,)}, []),
        ({"mine": (MINE.model_copy(update={"size": 5, "sha256": SHA, "revision": "a" * 40}),)}, []),
        ({}, ["mine: checkpoints/model.safetensors is described, and not locked."]),
        ({"mine": (MINE,), "gone": ()}, ["'gone' is not a model any more."]),
        ({"mine": (MINE, FOUND)}, ["mine: vae/m.bin is locked, and not described."]),
        (
            {"mine": (MINE.model_copy(update={"source": "huggingface:org/fork/model.safetensors"}),)},
            ["mine: checkpoints/model.safetensors is described with another source."],
        ),
    ],
)
def test_a_weights_lock_holds_the_described_files_and_no_others(
    locked: dict[str, tuple[LockedFile, ...]], says: list[str], tmp_path: Path
) -> None:
    path = weights_lock(tmp_path, **locked)
    mine = document.load(write(tmp_path / "mine.yaml", model(FILE))).parse(Model)
    assert drift.weight_drifts(path, {"mine": mine}, exact=True) == [f"{path}: {each}" for each in says]


@pytest.mark.parametrize("key", ["size", "sha256", "revision"])
def test_a_weights_lock_may_know_more_than_the_description_but_nothing_else(key: str, tmp_path: Path) -> None:
    path = weights_lock(tmp_path, mine=(FOUND,))
    stated = {"size": 5, "sha256": SHA, "revision": "a" * 40}
    other = {"size": 6, "sha256": "f" * 64, "revision": "b" * 40}
    for facts, says in ((stated, []), ({**stated, key: other[key]}, [f"another {key}"])):
        fields: dict[str, Any] = {"files": (described_file(**facts),)}
        mine = Model.model_construct(**fields)
        drifts = drift.weight_drifts(path, {"mine": mine}, exact=True)
        assert [each.rpartition("with ")[2].rstrip(".") for each in drifts] == says


def test_a_users_variant_may_use_the_shipped_lock_of_more_models(tmp_path: Path) -> None:
    path = weights_lock(tmp_path, mine=(MINE,), other=())
    mine = document.load(write(tmp_path / "mine.yaml", model(FILE))).parse(Model)
    assert drift.weight_drifts(path, {"mine": mine}, exact=False) == []


def test_a_weights_lock_that_is_not_there(tmp_path: Path) -> None:
    assert drift.weight_drifts(tmp_path / "none.json", {}, exact=True) == [
        f"There is no lock {tmp_path}/none.json."
    ]
