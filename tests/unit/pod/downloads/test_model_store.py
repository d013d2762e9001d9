"""What is there is used, what is wrong is moved aside, what is ours gets its name last."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest
from servers.hub_content import generate

from pod.downloads.model_store import ModelStore
from pod.downloads.staging import StagingPlan
from pod.model_refs.models_json import ModelFile
from pod.net.http import RefusedError
from pod.util.dataclass import replace

if TYPE_CHECKING:
    from pathlib import Path

DATA = generate(3000)
EXPECTED = "sha256:" + hashlib.sha256(DATA).hexdigest()
SOURCE = {"kind": "huggingface", "repo": "o/r", "path": "x/a.st"}
FILE = ModelFile("m", "vae", "a.safetensors", 3000, EXPECTED[7:], optional=False, source=SOURCE)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, said: list[str]) -> ModelStore:
    return ModelStore(
        tmp_path / "baked", tmp_path / "models", tmp_path / "volume", tmp_path / "cache", said.append
    )


def put(root: Path, data: bytes = DATA) -> Path:
    path = root / FILE.folder / FILE.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_baked_file_is_taken_at_its_size(store: ModelStore) -> None:
    """The image's digest has vouched for the bytes: no start hashes 40 GB again."""
    path = put(store.baked, b"\0" * 3000)
    assert store.known(FILE, EXPECTED, 3000) == path
    assert store.known(FILE, EXPECTED, 3001) is None


def test_a_file_on_the_volume_is_hashed_once(
    store: ModelStore, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(store.target)
    assert store.known(FILE, EXPECTED, 3000) is None  # not without a look
    assert store.examine(FILE, EXPECTED, 3000) == path
    assert said == [f"{path} is there; its hash is checked once"]
    monkeypatch.setattr("pod.downloads.model_store.digest", pytest.fail)
    assert store.known(FILE, EXPECTED, 3000) == path
    assert store.examine(FILE, EXPECTED, 3000) == path


def test_a_file_that_was_touched_is_hashed_again(store: ModelStore) -> None:
    path = put(store.target)
    store.examine(FILE, EXPECTED, 3000)
    path.write_bytes(b"\0" * 3000)
    os.utime(path, ns=(1, 1))
    assert store.known(FILE, EXPECTED, 3000) is None
    assert store.examine(FILE, EXPECTED, 3000) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [(DATA[:-1], "has 2999 bytes, not 3000"), (b"", "has 0 bytes"), (b"\0" * 3000, f"not {EXPECTED}")],
)
def test_a_wrong_file_is_moved_aside_and_kept(
    store: ModelStore, said: list[str], data: bytes, reason: str
) -> None:
    path = put(store.target, data)
    assert store.examine(FILE, EXPECTED, 3000) is None
    assert not path.exists()
    (aside,) = path.parent.glob("a.safetensors.corrupt-*")
    assert aside.read_bytes() == data
    assert aside.name in said[-1]
    assert reason in said[-1]


def test_a_wrong_file_that_cannot_be_moved_is_said(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(store.target, b"short")

    def read_only(_path: Path, _aside: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("pathlib.Path.rename", read_only)
    with pytest.raises(
        RefusedError, match=r"is wrong: .* has 5 bytes, not 3000; and it cannot be moved aside"
    ):
        store.examine(FILE, EXPECTED, 3000)
    assert path.exists()


@pytest.mark.parametrize("spoilt", [False, True])
def test_again_means_that_every_byte_is_read(store: ModelStore, spoilt: bool) -> None:
    """On the volume and in the image alike, though size, time and record say that nothing has changed."""
    for root in (store.target, store.baked):
        path = put(root)
        store.examine(FILE, EXPECTED, 3000)
        stamp = path.stat()
        path.write_bytes(b"\0" * 3000 if spoilt else DATA)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert store.known(FILE, EXPECTED, 3000) == path
        seen: dict[int, int] = {}
        found = store.examine(FILE, EXPECTED, 3000, again=True, seen=seen.__setitem__)
        assert found == (None if spoilt else path)
        assert seen == {3000: 3000}
        path.unlink(missing_ok=True)


def test_ours_comes_before_the_images(store: ModelStore) -> None:
    """As ComfyUI looks: what was fetched because the baked one is wrong must be what counts."""
    put(store.baked)
    path = put(store.target)
    store.examine(FILE, EXPECTED, 3000)
    assert store.known(FILE, EXPECTED, 3000) == path


def test_a_wrong_file_that_is_not_ours_is_left_alone(store: ModelStore, said: list[str]) -> None:
    path = put(store.volume, b"other")
    assert store.examine(FILE, EXPECTED, 3000) is None
    assert path.read_bytes() == b"other"
    assert "left alone" in said[-1]


def test_the_serverless_volume_is_looked_at(store: ModelStore) -> None:
    path = put(store.volume)
    assert store.examine(FILE, EXPECTED, 3000) == path
    assert store.known(FILE, EXPECTED, 3000) == path


def test_a_listed_hash_that_changed_outdates_the_record(store: ModelStore) -> None:
    put(store.target)
    store.examine(FILE, EXPECTED, 3000)
    assert store.known(FILE, "sha256:new", 3000) is None
    assert store.examine(FILE, "sha256:new", 3000) is None


@pytest.mark.parametrize("record", ["", "{}", "[]", '{"size": 3000}', "null"])
def test_a_damaged_record_costs_a_hash(store: ModelStore, record: str) -> None:
    path = put(store.target)
    store.examine(FILE, EXPECTED, 3000)
    (path.parent / ".podkiln/a.safetensors.verified.json").write_text(record)
    assert store.known(FILE, EXPECTED, 3000) is None
    assert store.examine(FILE, EXPECTED, 3000) == path


def cached(store: ModelStore, data: bytes = DATA) -> Path:
    blob = store.cache / "models--o--r/blobs/1"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(data)
    link = store.cache / "models--o--r/snapshots/c0ffee/x/a.st"
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    return link


def test_runpods_cached_model_is_linked(store: ModelStore) -> None:
    link = cached(store)
    place = store.place(FILE)
    assert store.examine(FILE, EXPECTED, 3000) == place
    assert place.is_symlink()
    assert place.read_bytes() == DATA
    assert store.known(FILE, EXPECTED, 3000) == place
    link.unlink()  # another model was cached since
    assert store.known(FILE, EXPECTED, 3000) is None
    assert store.examine(FILE, EXPECTED, 3000) is None
    assert not place.is_symlink()


def test_a_cached_file_of_another_version_is_not_linked(store: ModelStore) -> None:
    cached(store, b"\0" * 3000)
    assert store.examine(FILE, EXPECTED, 3000) is None
    assert not store.place(FILE).exists()


def grow(store: ModelStore, data: bytes = DATA) -> Path:
    grown = store.staging(FILE, ".part")
    grown.parent.mkdir(parents=True)
    grown.write_bytes(data)
    grown.with_suffix(".state").write_text("journal")
    return grown


def test_publishing_names_records_and_cleans_up(store: ModelStore) -> None:
    grown = grow(store)
    place = store.publish(FILE, StagingPlan(grown), EXPECTED)
    assert place.read_bytes() == DATA
    assert store.known(FILE, EXPECTED, 3000) == place
    assert [path.name for path in grown.parent.iterdir()] == ["a.safetensors.verified.json"]
    assert json.loads(next(grown.parent.iterdir()).read_text())["digest"] == EXPECTED


def test_what_is_no_safetensors_file_is_never_published(store: ModelStore) -> None:
    grown = grow(store, b"<html>" * 500)
    with pytest.raises(RefusedError, match=r"is not a \.safetensors file"):
        store.publish(FILE, StagingPlan(grown), EXPECTED)
    assert not store.place(FILE).exists()


def test_a_folder_that_is_a_link_to_another_disk_works(store: ModelStore, tmp_path: Path) -> None:
    """Users link models/vae to a larger disk: the part must lie there too, or the rename fails."""
    store.target.mkdir()
    (tmp_path / "disk").mkdir()
    (store.target / "vae").symlink_to(tmp_path / "disk")
    store.publish(FILE, StagingPlan(grow(store)), EXPECTED)
    assert (tmp_path / "disk" / FILE.name).read_bytes() == DATA
    assert (tmp_path / "disk/.podkiln").is_dir()


def test_a_record_of_another_kind_of_hash_says_nothing(store: ModelStore, said: list[str]) -> None:
    """A small file is known by git's object id until its sha256 is listed; it is the same file."""
    path = put(store.target)
    git = hashlib.sha1(b"blob 3000\0" + DATA, usedforsecurity=False).hexdigest()
    assert store.examine(FILE, f"git:{git}", 3000) == path
    assert store.examine(FILE, EXPECTED, 3000) == path
    assert store.examine(FILE, f"git:{git}", 3000) == path
    assert not [sentence for sentence in said if "moved aside" in sentence]


def test_an_older_layout_is_looked_at(store: ModelStore, said: list[str], tmp_path: Path) -> None:
    """ComfyUI reads it too; nothing there is moved."""
    older = replace(store, others=(tmp_path / "ComfyUI/models",))
    path = put(tmp_path / "ComfyUI/models")
    assert older.anywhere(FILE, 3000) == path
    assert older.examine(FILE, EXPECTED, 3000) == path
    assert older.known(FILE, EXPECTED, 3000) == path
    path.write_bytes(b"\0" * 3000)
    os.utime(path, ns=(1, 1))
    assert older.examine(FILE, EXPECTED, 3000) is None
    assert path.exists()
    assert "it is left alone, and fetched to" in said[-1]


def test_only_our_own_dead_links_are_removed(store: ModelStore) -> None:
    for root in (store.target, store.volume):
        link = root / FILE.folder / FILE.name
        link.parent.mkdir(parents=True)
        link.symlink_to("gone")
    assert store.examine(FILE, EXPECTED, 3000) is None
    assert not (store.target / FILE.folder / FILE.name).is_symlink()
    assert (store.volume / FILE.folder / FILE.name).is_symlink()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_a_volume_that_may_not_be_read_holds_nothing(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The stand-in serves then: a fetch must not fail for a folder that it only looks into."""
    put(store.volume)
    real = os.stat

    def stat(path: object, *arguments: object, **more: object) -> os.stat_result:
        if str(path).startswith(str(store.volume)):
            raise OSError(code, os.strerror(code))
        return real(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    assert store.known(FILE, EXPECTED, 3000) is None
    assert store.anywhere(FILE, None) is None
    assert store.examine(FILE, EXPECTED, 3000) is None
    assert not store.holds(FILE)


def test_a_folder_of_the_files_name_is_seen_before_anything_is_fetched(store: ModelStore) -> None:
    store.place(FILE).mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        store.examine(FILE, EXPECTED, 3000)
