"""From what BuildKit exports to the image: its layers anew, and remembered."""

from __future__ import annotations

import errno
import io
import os
import re
import tarfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from exports import EPOCH, export, tar

from podkiln.canonical_layers import checks, compressed, image, writer
from podkiln.canonical_layers.cache import LayerCache
from podkiln.canonical_layers.exported import DamagedExportError, ExportedImage, PlainLayer
from podkiln.errors import IntegrityError, PodkilnError
from podkiln.oci import layout, spec
from podkiln.util import disk_space

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podkiln.oci.layout import Layout


def write(exported: Layout, place: Path, known: LayerCache, *, consume: bool = False) -> None:
    """Write the image, its config as exported but for the times."""
    history = [{**row, "created": "2023-11-14T22:13:20Z"} for row in exported.config.history]
    document = {**exported.config.document, "history": history}
    made = ExportedImage.of(exported)
    image.write(made, document, place, EPOCH, known, image.unneeded(made, (), EPOCH) if consume else ())


def joined(*tars: bytes) -> bytes:
    """Return one tar of all that is in several."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as whole:
        for each in tars:
            with tarfile.open(fileobj=io.BytesIO(each)) as part:
                for member in part:
                    whole.addfile(member, part.extractfile(member))
    return made.getvalue()


def names(made: Layout) -> list[list[str]]:
    """Return what lies in each layer."""
    found = []
    for layer in made.manifest.layers:
        data = zstandard.ZstdDecompressor().stream_reader(made.blob_path(layer.digest).read_bytes()).read()
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            found.append(archive.getnames())
    return found


def test_the_image_holds_the_layers_anew_and_a_config_that_tells_of_them(tmp_path: Path) -> None:
    exported = export(tmp_path / "kept", ("COPY a", tar("b", "a")), ("RUN c", tar("a", "c", time=EPOCH + 5)))
    write(exported, tmp_path / "made", LayerCache(tmp_path / "cache"))
    made = layout.read(tmp_path / "made", full=True)
    assert names(made) == [["a", "b"], ["c"]]  # the second `a` is the first
    assert {layer.media_type for layer in made.manifest.layers} == {spec.LAYER_ZSTD}
    assert [row["created"] for row in made.config.history] == ["2023-11-14T22:13:20Z"] * 3
    assert made.config.document["config"] == {"Env": ["A=1"]}


def test_the_empty_layer_of_a_folder_that_is_there_is_left_out_and_no_other(tmp_path: Path) -> None:
    layers = (("COPY a", tar("a")), ("WORKDIR /x", tar()), ("RUN nothing", tar()), ("RUN again", tar()))
    write(export(tmp_path / "kept", *layers), tmp_path / "made", LayerCache(tmp_path / "cache"))
    made = layout.read(tmp_path / "made")
    assert names(made) == [["a"], [], []]
    assert [row.get("empty_layer", False) for row in made.config.history] == [False, True, False, False, True]


@pytest.mark.parametrize("order", ["abc", "cab"])  # as a differ writes them, and as another maker may
def test_layers_in_zstd_are_written_as_plain_ones_are(
    tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "_CHUNK", 700)
    texts = {name: name.encode() * 5000 for name in order}
    layer = ("COPY a", joined(*(tar(name, data=text) for name, text in texts.items())))
    for zstd in (False, True):
        exported = export(tmp_path / f"kept{zstd}", layer, zstd=zstd)
        write(exported, tmp_path / f"made{zstd}", LayerCache(tmp_path / f"cache{zstd}"))
    plain, packed = (layout.read(tmp_path / f"made{zstd}", full=True) for zstd in (False, True))
    assert packed.descriptor.digest == plain.descriptor.digest
    assert names(packed) == [["a", "b", "c"]]


def test_what_lies_behind_in_zstd_is_not_unpacked_again_for_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "_CHUNK", 700)
    opened: list[Any] = []
    really = compressed.unpacked

    def counted(file: Any) -> Any:
        opened.append(file)
        return really(file)

    monkeypatch.setattr(compressed, "unpacked", counted)
    layer = joined(*(tar(name, data=name.encode() * 5000) for name in "zyxwvutsrq"))
    exported = export(tmp_path / "kept", ("COPY a", layer), zstd=True)
    write(exported, tmp_path / "made", LayerCache(tmp_path / "cache"))
    assert len(opened) == 3  # to know it, to write it, and once more for what lies behind


@pytest.mark.parametrize("spoil", ["other", "half", "noise"])
def test_a_layer_in_zstd_that_somebody_has_changed_is_not_taken(tmp_path: Path, spoil: str) -> None:
    exported = export(tmp_path / "kept", ("COPY a", tar("a", data=b"right")), zstd=True)
    blob = exported.blob_path(exported.manifest.layers[0].digest)
    whole = blob.read_bytes()
    other = zstandard.compress(tar("a", data=b"wrong"))
    blob.write_bytes({"other": other, "half": whole[:-9], "noise": bytes(len(whole))}[spoil])
    with pytest.raises(IntegrityError, match="kept export of the build was damaged"):
        write(exported, tmp_path / "made", LayerCache(tmp_path / "cache"))
    assert not blob.exists()


def test_a_disk_that_fails_is_not_taken_for_a_damaged_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: Any) -> Any:
        raise OSError(errno.EIO, "no answer")

    monkeypatch.setattr(compressed, "unpacked", failing)
    exported = export(tmp_path / "kept", ("COPY a", tar("a")), zstd=True)
    with pytest.raises(OSError, match="no answer"):
        write(exported, tmp_path / "made", LayerCache(tmp_path / "cache"))
    assert exported.blob_path(exported.manifest.layers[0].digest).exists()


def test_a_layer_of_another_kind_is_refused_with_its_kind(tmp_path: Path) -> None:
    exported = export(tmp_path / "kept", ("COPY a", tar("a")))
    gzip = replace(exported.manifest.layers[0], media_type=spec.LAYER_GZIP)
    changed = replace(exported, manifest=replace(exported.manifest, layers=(gzip,)))
    with pytest.raises(IntegrityError, match=re.escape(spec.LAYER_GZIP)):
        ExportedImage.of(changed)


def test_other_exports_of_the_same_files_give_one_digest(tmp_path: Path) -> None:
    digests = set()
    for number, layers in enumerate(
        (
            (("COPY a", tar("a", "b")), ("WORKDIR /x", tar()), ("RUN c", tar("c"))),
            (("COPY a", tar("b", "a", time=EPOCH + 9)), ("WORKDIR /x", tar("a")), ("RUN c", tar("a", "c"))),
        )
    ):
        exported = export(tmp_path / f"kept{number}", *layers)
        write(exported, tmp_path / f"made{number}", LayerCache(tmp_path / f"cache{number}"))
        digests.add(layout.read(tmp_path / f"made{number}").descriptor.digest)
    assert len(digests) == 1


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of layers, one for each time that their tar is opened."""
    found: list[str] = []

    def count(name: str) -> None:
        really = getattr(PlainLayer, name)

        def counted(self: PlainLayer, *more: Any) -> Any:
            found.append(self.diff_id)
            return really(self, *more)

        monkeypatch.setattr(PlainLayer, name, counted)

    for name in ("open", "pieces"):
        count(name)
    return found


def test_what_was_written_once_is_remembered_and_its_tar_not_read(tmp_path: Path, opened: list[str]) -> None:
    known = LayerCache(tmp_path / "cache")
    below = tar("a", "b")
    write(export(tmp_path / "kept", ("COPY a", below)), tmp_path / "made", known)
    opened.clear()
    exported = export(tmp_path / "kept2", ("COPY a", below), ("COPY b", tar("b", "c")))
    write(exported, tmp_path / "made2", known)
    assert set(opened) == {exported.config.diff_ids[1]}
    assert names(layout.read(tmp_path / "made2", full=True)) == [["a", "b"], ["c"]]
    opened.clear()
    write(exported, tmp_path / "made3", known)
    assert opened == []


@pytest.mark.parametrize("damaged", ["blobs", "entries", "written"])
def test_what_is_remembered_and_damaged_is_made_again(tmp_path: Path, damaged: str) -> None:
    known = LayerCache(tmp_path / "cache")
    exported = export(tmp_path / "kept", ("COPY a", tar("a")), ("COPY b", tar("a", "b")))
    write(exported, tmp_path / "made", known)
    for path in (tmp_path / "cache" / damaged).iterdir():
        path.unlink()
        path.write_bytes(b"half")
    above = export(
        tmp_path / "kept2", *(("COPY a", tar("a")), ("COPY b", tar("a", "b")), ("COPY c", tar("c")))
    )
    write(above, tmp_path / "again", known)
    assert names(layout.read(tmp_path / "again", full=True)) == [["a"], ["b"], ["c"]]


def test_an_export_that_somebody_has_changed_is_not_taken(tmp_path: Path) -> None:
    exported = export(tmp_path / "kept", ("COPY a", tar("a", data=b"right")))
    blob = exported.blob_path(exported.manifest.layers[0].digest)
    blob.write_bytes(blob.read_bytes().replace(b"right", b"wrong"))
    with pytest.raises(IntegrityError, match="kept export of the build was damaged"):
        write(exported, tmp_path / "made", LayerCache(tmp_path / "cache"))


def test_layers_are_consumed_where_the_disk_is_small(tmp_path: Path) -> None:
    exported = export(tmp_path / "kept", ("COPY a", tar("a")), ("COPY b", tar("b")))
    write(exported, tmp_path / "made", LayerCache(tmp_path / "cache"), consume=True)
    assert [exported.blob_path(each.digest).exists() for each in exported.manifest.layers] == [False, False]
    assert names(layout.read(tmp_path / "made", full=True)) == [["a"], ["b"]]


def test_equal_layers_are_one_file_that_is_consumed_once(tmp_path: Path) -> None:
    exported = export(tmp_path / "kept", ("RUN nothing", tar()), ("RUN again", tar()), ("COPY a", tar("a")))
    write(exported, tmp_path / "made", LayerCache(tmp_path / "cache"), consume=True)
    assert names(layout.read(tmp_path / "made", full=True)) == [[], [], ["a"]]


def test_a_kept_layer_that_was_edited_in_place_is_written_again(tmp_path: Path) -> None:
    known = LayerCache(tmp_path / "cache")
    exported = export(tmp_path / "kept", ("COPY a", tar("a")))
    write(exported, tmp_path / "made", known)
    blob = known.blob(layout.read(tmp_path / "made").manifest.layers[0].digest)
    with blob.open("r+b") as file:
        file.seek(blob.stat().st_size - 1)
        file.write(b"?")
    write(exported, tmp_path / "again", known)
    assert names(layout.read(tmp_path / "again", full=True)) == [["a"]]


def test_of_several_layers_the_one_that_was_damaged_is_named_and_removed(tmp_path: Path) -> None:
    exported = export(tmp_path / "kept", ("COPY a", tar("a", data=b"right")), ("COPY b", tar("b")))
    below, above = (exported.blob_path(each.digest) for each in exported.manifest.layers)
    below.write_bytes(below.read_bytes().replace(b"right", b"wrong"))
    with pytest.raises(IntegrityError, match=below.name[:12]):
        write(exported, tmp_path / "made", LayerCache(tmp_path / "cache"))
    assert (below.exists(), above.exists()) == (False, True)
    assert not list((tmp_path / "cache").glob("written/*"))


def test_the_cache_forgets_what_was_used_longest_ago(tmp_path: Path) -> None:
    known = LayerCache(tmp_path / "cache")
    exported = export(tmp_path / "kept", ("COPY a", tar("a")), ("COPY b", tar("b")))
    write(exported, tmp_path / "made", known)
    known.prune()
    assert len(list((tmp_path / "cache/blobs").iterdir())) == 2
    known.prune(most=0)
    assert list((tmp_path / "cache/blobs").iterdir()) == []


@pytest.mark.parametrize("zstd", [False, True])
def test_progress_is_told_of_each_layer_that_is_read_and_written(tmp_path: Path, zstd: bool) -> None:
    made = ExportedImage.of(export(tmp_path / "kept", ("COPY a", tar("a")), ("COPY b", tar("b")), zstd=zstd))
    told: dict[str, list[tuple[int, int]]] = {}
    image.write(
        made,
        {**made.config.document},
        tmp_path / "made",
        EPOCH,
        LayerCache(tmp_path / "cache"),
        on_progress=lambda name, done, whole: told.setdefault(name, []).append((done, whole)),
    )
    assert told.keys() == set(made.config.diff_ids)
    for layer in made.layers:
        assert told[layer.diff_id] == sorted(told[layer.diff_id])
        assert told[layer.diff_id][-1] == (2 * layer.size, 2 * layer.size)


def spoil(blob: Path) -> None:
    """Change the last byte of a layer, and give it back the time that it had."""
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    with blob.open("r+b") as file:
        file.write(data)
    os.utime(blob, (1, 1))


def test_a_kept_layer_that_was_changed_behind_its_times_back_is_found_at_its_first_use_in_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = LayerCache(tmp_path / "cache")
    exported = export(tmp_path / "kept", ("COPY a", tar("a")))
    write(exported, tmp_path / "made", known)
    blob = known.blob(layout.read(tmp_path / "made").manifest.layers[0].digest)
    spoil(blob)
    write(exported, tmp_path / "same day", known)  # it is hashed again as it is sent
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + checks.MAX_AGE)
    write(exported, tmp_path / "next day", known)
    assert names(layout.read(tmp_path / "next day", full=True)) == [["a"]]


@pytest.mark.parametrize(
    "change", ["nothing", "a day", "the clock put back", "a boot", "another file", "a memory that was edited"]
)
def test_a_kept_layer_is_read_again_after_a_boot_and_a_day_and_not_before(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = LayerCache(tmp_path / "cache")
    exported = export(tmp_path / "kept", ("COPY a", tar("a")))
    write(exported, tmp_path / "made", known)
    now = time.time()
    blob = next((tmp_path / "cache/blobs").iterdir())
    record = tmp_path / "cache/checked" / blob.name
    if change in ("a day", "the clock put back"):
        monkeypatch.setattr(
            time, "time", lambda: now + (checks.MAX_AGE + 1) * (1 if change == "a day" else -1)
        )
    elif change == "a boot":
        monkeypatch.setattr(checks, "boot_id", lambda: "another")
    elif change == "another file":
        copy = blob.read_bytes()
        blob.rename(tmp_path / "aside")  # so that its inode is not used again
        blob.write_bytes(copy)
        os.utime(blob, (1, 1))
    elif change == "a memory that was edited":
        record.write_text(record.read_text().replace('"at": ', '"at": 1'))
    (key,) = [path.stem for path in (tmp_path / "cache/written").iterdir()]
    read: list[int] = []
    for _ in range(2):  # once it was read, it is remembered
        assert known.find(key, lambda done, _: read.append(done))
    assert read == ([] if change == "nothing" else [blob.stat().st_size])


def test_a_pulled_layer_is_read_each_time_and_had_again_where_it_was_changed(tmp_path: Path) -> None:
    known = LayerCache(tmp_path / "cache")
    blob = spec.Descriptor(spec.LAYER_ZSTD, spec.digest_of(b"layer"), 5)
    asked: list[int] = []

    def pieces() -> Iterator[bytes]:
        asked.append(1)
        yield b"layer"

    for wanted in (1, 1, 2):
        if wanted == 2:
            spoil(known.blob(blob.digest))
        assert known.add(blob, pieces()).read_bytes() == b"layer"
        assert len(asked) == wanted


@pytest.mark.parametrize("zstd", [False, True])
def test_a_layer_that_changes_between_its_two_readings_is_not_taken(
    zstd: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = export(tmp_path / "kept", ("COPY a", tar("a", data=b"right")), zstd=zstd)
    blob = exported.blob_path(exported.manifest.layers[0].digest)
    kind = compressed.CompressedLayer if zstd else PlainLayer
    opened = kind.open

    def changed(layer: Any, consumed_by: Any = None) -> Any:
        wrong = tar("a", data=b"wrong")
        blob.write_bytes(zstandard.compress(wrong) if zstd else wrong)
        return opened(layer, consumed_by)

    monkeypatch.setattr(kind, "open", changed)
    with pytest.raises(DamagedExportError, match=spec.short(exported.config.diff_ids[0])):
        write(exported, tmp_path / "made", LayerCache(tmp_path / "cache"))
    assert not blob.exists()
    assert list((tmp_path / "cache/blobs").iterdir()) == []


@pytest.mark.parametrize("where", ["cache", "made"])
def test_a_full_disk_names_its_folder_and_what_is_missing_and_no_layer_stays(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    exported = export(tmp_path / "kept", ("COPY a", tar("a", data=b"x" * 100_000)))
    monkeypatch.setattr(disk_space, "free", lambda _: 10)
    if where == "cache":
        monkeypatch.setattr(writer, "write", full)
    else:
        monkeypatch.setattr(image, "link", full)
    folder = tmp_path if where == "made" else tmp_path / where
    with pytest.raises(PodkilnError, match=rf"^The disk of {folder} is full: .* are missing\.") as raised:
        write(exported, tmp_path / "made", LayerCache(tmp_path / "cache"))
    assert raised.value.exit_code == 1
    assert len(list((tmp_path / "cache/blobs").iterdir())) == (1 if where == "made" else 0)


def test_what_was_planted_in_the_cache_is_passed_over_and_nothing_outside_is_removed(tmp_path: Path) -> None:
    known, outside = LayerCache(tmp_path / "cache"), tmp_path / "outside"
    write(export(tmp_path / "kept", ("COPY a", tar("a"))), tmp_path / "made", known)
    outside.write_text("mine")
    os.mkfifo(known.folder / "written/fifo.json")
    (known.folder / "written/up.json").write_text('{"digest": "sha256:../../outside"}')
    (known.folder / "written/deep.json").write_text("[" * 200_000)
    (known.folder / "entries/nowhere").symlink_to("nowhere")
    for folder in ("entries", "checked", "blobs"):
        (known.folder / folder / "planted").mkdir()
    known.prune(0)
    known.doubt()
    known.keep_only(())
    assert outside.read_text() == "mine"
