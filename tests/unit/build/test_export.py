"""Where BuildKit exports to: a folder that is kept, or a stream that no disk holds as it is."""

from __future__ import annotations

import csv
import io
import os
import tarfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from exports import EPOCH, export, tar

from podkiln.build.kept_export import KeptExport
from podkiln.build.streamed_export import StreamedExport
from podkiln.canonical_layers import exported, packed
from podkiln.canonical_layers.exported import DamagedExportError
from podkiln.canonical_layers.packed import PackedLayer
from podkiln.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podkiln.canonical_layers.exported import ExportedImage
    from podkiln.oci.layout import Layout


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
        assert [len(kept.exported(name).layers) for name in ("one", "two")] == [1, 1]
        kept.prepare(["one"])
        kept.prune()
        assert len(list((kept.folder / "blobs/sha256").iterdir())) == 3


def test_a_variant_and_a_cache_folder_may_have_any_name(tmp_path: Path) -> None:
    with KeptExport.hold(tmp_path / 'a,b "c"', None) as kept:
        kept.prepare(["blobs"])
        export(kept.folder / "images/blobs", ("COPY a", tar("a")))
        kept.prune()
        assert len(kept.exported("blobs").layers) == 1
        (_, option) = kept.options(["blobs"])
    (fields,) = csv.reader([option.partition("=")[2]])
    assert fields[:2] == ["type=oci", f"dest={kept.folder}/images/blobs"]
    assert {"tar=false", "compression=zstd", "compression-level=1", "force-compression=true"} < set(fields)


@pytest.mark.parametrize(
    "damage", ["no index", "its manifest", "its config", "a layer's size", "a layer is gone"]
)
def test_a_kept_export_that_was_damaged_is_thrown_away(damage: str, tmp_path: Path) -> None:
    """BuildKit takes a blob that is there for what it would write, so one that stayed would fail for ever."""
    with KeptExport.hold(tmp_path, None) as kept:
        kept.prepare(["one"])
        made = export(kept.folder / "images" / "one", ("COPY a", tar("a")))
        (layer,) = made.manifest.layers
        if damage == "no index":
            (made.path / "index.json").unlink()
        elif damage == "a layer is gone":
            made.blob_path(layer.digest).unlink()
        else:
            digest = {"its manifest": made.descriptor, "its config": made.manifest.config}.get(damage, layer)
            made.blob_path(digest.digest).write_bytes(b"{}")
        with pytest.raises(DamagedExportError, match="kept export of the build was damaged") as failure:
            kept.exported("one")
        assert str(kept.folder) in str(failure.value.hint)
        assert list((kept.folder / "blobs").iterdir()) == []
        kept.prepare(["one"])
        export(kept.folder / "images" / "one", ("COPY a", tar("a")))
        assert len(kept.exported("one").layers) == 1


@pytest.fixture
def streamed(tmp_path: Path) -> Iterator[StreamedExport]:
    with StreamedExport.begin(tmp_path / "cache", ["one", "two"]) as made:
        made.prepare(["one", "two"])
        yield made
    assert list((tmp_path / "cache").iterdir()) == []


def send(made: StreamedExport, name: str, folder: Path, change: Callable[[bytes], bytes] = bytes) -> None:
    """Write a layout as BuildKit streams it: blobs by digest, the index behind them."""
    (_, option) = made.options([name])
    fields = next(csv.reader([option.partition("=")[2]]))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, path.relative_to(folder), recursive=False)
    with Path(fields[1].removeprefix("dest=")).open("wb") as fifo:
        fifo.write(change(out.getvalue()))


def listed(image: ExportedImage) -> list[list[bytes]]:
    """Return what is in each layer."""
    return [[entry.path for entry in exported.read(layer, EPOCH, iter)] for layer in image.layers]


def test_images_come_as_streams_and_share_layers(streamed: StreamedExport, tmp_path: Path) -> None:
    shared = ("COPY a", tar("{b", "a"))
    export(tmp_path / "1", shared)
    export(tmp_path / "2", shared, ("COPY c", tar("c")))
    writers = [
        threading.Thread(target=send, args=(streamed, name, tmp_path / folder))
        for name, folder in (("one", "1"), ("two", "2"))
    ]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    one, two = streamed.exported("one"), streamed.exported("two")
    assert listed(one) == [[b"a", b"{b"]]
    assert listed(two) == [[b"a", b"{b"], [b"c"]]
    assert one.layers[0] is two.layers[0]


def test_a_shared_layer_is_waited_for_whoever_brings_it(
    streamed: StreamedExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = ("COPY a", tar("a"))
    export(tmp_path / "1", shared)
    export(tmp_path / "2", shared)
    claimed, pack = threading.Event(), PackedLayer.pack

    def slowly(pieces: Iterator[bytes], path: Path) -> PackedLayer:
        claimed.set()
        time.sleep(0.3)
        return pack(pieces, path)

    monkeypatch.setattr(PackedLayer, "pack", slowly)
    threading.Thread(target=send, args=(streamed, "two", tmp_path / "2"), daemon=True).start()
    assert claimed.wait(20)
    send(streamed, "one", tmp_path / "1")
    assert listed(streamed.exported("one")) == [[b"a"]]


def test_a_build_that_fails_at_once_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = StreamedExport._read

    def slowly(self: StreamedExport, name: str) -> Any:
        time.sleep(0.3)
        return read(self, name)

    monkeypatch.setattr(StreamedExport, "_read", slowly)
    with StreamedExport.begin(tmp_path / "cache", ["one"]) as made:
        made.prepare(["one"])
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_is_said_once_buildkit_has_ended(
    streamed: StreamedExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client has the FIFO open to read as well, so that writing never fails, and waits for a reader."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PackedLayer, "pack", full)
    export(tmp_path / "1", ("COPY a", tar("a", data=b"x" * 3_000_000)))
    reading = os.open(streamed.folder / "one.fifo", os.O_RDONLY | os.O_NONBLOCK)
    send(streamed, "one", tmp_path / "1")
    os.close(reading)
    with pytest.raises(OSError, match="No space left on device") as failed:
        streamed.exported("one")
    assert failed.value.filename == str(streamed.folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:3000], "could not be read as a tar"),
        (lambda data: data.replace(b"right", b"wrong"), "with the content of another layer"),
    ],
)
def test_a_stream_that_is_damaged_is_not_taken(
    streamed: StreamedExport, tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    export(tmp_path / "1", ("COPY a", tar("a", data=b"right")))
    send(streamed, "one", tmp_path / "1", change)
    with pytest.raises(IntegrityError, match=words):
        streamed.exported("one")


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (lambda layout: layout.path / "index.json", "is not an OCI layout"),
        (lambda layout: layout.blob_path(layout.manifest.layers[0].digest), "one without its layer"),
        (lambda layout: layout.blob_path(layout.manifest.config.digest), "is missing"),
    ],
)
def test_a_stream_that_lacks_something_is_not_taken(
    streamed: StreamedExport, tmp_path: Path, lost: Callable[[Layout], Path], words: str
) -> None:
    lost(export(tmp_path / "1", ("COPY a", tar("a")))).unlink()
    send(streamed, "one", tmp_path / "1")
    with pytest.raises(IntegrityError, match=words):
        streamed.exported("one")


def test_a_packed_layer_reads_as_its_tar_and_goes_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "FRAME", 1024)
    data = tar("a", "b", "c", "d", data=bytes(range(256)) * 20)
    layer = PackedLayer.pack(iter([data[:700], data[700:]]), tmp_path / "packed")
    with layer.open() as file:
        assert file.read() == data
        assert (file.seek(len(data) - 5000), file.read(100)) == (len(data) - 5000, data[-5000:-4900])
    entries = exported.read(layer, EPOCH, iter)
    frames = len(list(layer.folder.iterdir()))
    assert frames == -(-len(data) // 1024)
    left = []
    with layer.open(entries[1:]) as file:  # the first is not needed
        for entry in entries[1:]:
            file.seek(entry.offset)
            assert file.read(entry.size) == data[entry.offset : entry.offset + entry.size]
            left.append(len(list(layer.folder.iterdir())))
    assert left == sorted(left, reverse=True)
    assert left[0] <= frames / 2 + 1
    assert left[-1] == 0
