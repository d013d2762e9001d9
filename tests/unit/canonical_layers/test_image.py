"""From what BuildKit exports to the image: its layers anew, and remembered."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from podkiln.build.kept_export import KeptExport
from podkiln.canonical_layers import image
from podkiln.canonical_layers.cache import LayerCache
from podkiln.canonical_layers.exported import ExportedImage, PlainLayer
from podkiln.errors import IntegrityError
from podkiln.oci import layout, spec

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.oci.layout import Layout

EPOCH = 1_700_000_000


def tar(*names: str, data: bytes = b"x", time: int = EPOCH) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), time
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def export(place: Path, *layers: tuple[str, bytes], blobs: Path | None = None) -> Layout:
    """Write what BuildKit exports: each layer with the instruction that made it, as a plain tar."""
    (blobs or place / "blobs").joinpath("sha256").mkdir(parents=True, exist_ok=True)
    if blobs:
        (place / "blobs").symlink_to(blobs)

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digits = hashlib.sha256(data).hexdigest()
        (place / "blobs" / "sha256" / digits).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digits}", "size": len(data)}

    told = [blob(spec.LAYER, data) for _, data in layers]
    history = [
        {"created_by": word, "created": "2020-01-01T00:00:00Z"} if word != "ENV" else {"empty_layer": True}
        for word, _ in layers
    ]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": [each["digest"] for each in told]},
        "history": [*history, {"created_by": "ENV A=1", "empty_layer": True}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": spec.MANIFEST,
        "config": blob(spec.CONFIG, json.dumps(config).encode()),
        "layers": told,
    }
    index = {"schemaVersion": 2, "manifests": [blob(spec.MANIFEST, json.dumps(manifest).encode())]}
    (place / "index.json").write_text(json.dumps(index))
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return layout.read(place)


def write(exported: Layout, place: Path, known: LayerCache, *, consume: bool = False) -> None:
    """Write the image, its config as exported but for the times."""
    history = [{**row, "created": "2023-11-14T22:13:20Z"} for row in exported.config.history]
    document = {**exported.config.document, "history": history}
    image.write(ExportedImage.of(exported), document, place, EPOCH, known, consume=consume)


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
    really = PlainLayer.open

    def counted(self: PlainLayer) -> Any:
        found.append(self.diff_id)
        return really(self)

    monkeypatch.setattr(PlainLayer, "open", counted)
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


def test_a_kept_export_keeps_what_the_last_builds_of_variants_have(tmp_path: Path) -> None:
    with KeptExport.hold(tmp_path, "my builder") as kept:
        assert kept.folder == tmp_path / "my_builder"
        kept.prepare(["one", "two"])
        for name in ("one", "two"):
            (kept.folder / "images" / name / "blobs").unlink()
            export(kept.folder / "images" / name, ("COPY a", tar("a", name)), blobs=kept.folder / "blobs")
        (kept.folder / "blobs/sha256" / ("0" * 64)).write_bytes(b"of an earlier build")
        kept.prune()
        assert len(list((kept.folder / "blobs/sha256").iterdir())) == 6
        assert [len(kept.exported(name).manifest.layers) for name in ("one", "two")] == [1, 1]
        kept.prepare(["one"])
        kept.prune()
        assert len(list((kept.folder / "blobs/sha256").iterdir())) == 3
        kept.remove()
        assert sorted(path.name for path in kept.folder.iterdir()) == [".lock", "blobs"]


def test_a_variant_and_a_cache_folder_may_have_any_name(tmp_path: Path) -> None:
    with KeptExport.hold(tmp_path / 'a,b "c"', None) as kept:
        kept.prepare(["blobs"])
        export(kept.folder / "images/blobs", ("COPY a", tar("a")))
        kept.prune()
        assert len(kept.exported("blobs").manifest.layers) == 1
        (_, option) = kept.options(["blobs"])
    (fields,) = csv.reader([option.partition("=")[2]])
    assert fields[:2] == ["type=oci", f"dest={kept.folder}/images/blobs"]


def test_an_export_that_cannot_be_read_says_which_folder_to_delete(tmp_path: Path) -> None:
    with KeptExport.hold(tmp_path, None) as kept:
        kept.prepare(["one"])
        with pytest.raises(IntegrityError) as failure:
            kept.exported("one")
    assert str(kept.folder) in str(failure.value.hint)
