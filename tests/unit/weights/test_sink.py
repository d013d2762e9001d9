"""Where layers go: all of one arrives under its digest, or nothing does."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from podkiln.errors import IntegrityError, PodkilnError, UsageError
from podkiln.oci import spec
from podkiln.registry.cancellation import CancelledError
from podkiln.util import disk_space
from podkiln.weights.sink import LayoutSink, RegistrySink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers.registry import Registry

    from podkiln.oci.tar_layer import Chunk
    from podkiln.registry import Repository

DATA = b"weights" * 1000
BLOB = spec.Descriptor(spec.LAYER, spec.digest_of(DATA), len(DATA))


@dataclass
class Layer:
    """A layer on its way, in two chunks; `after` is done between them, and may raise."""

    data: bytes = DATA
    after: Callable[[], None] = lambda: None
    name: str = "a.safetensors"
    blob: spec.Descriptor | None = None
    told: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.data)

    def chunks(self, offset: int = 0) -> Iterator[Chunk]:
        middle = len(self.data) // 2
        if offset < middle:
            yield memoryview(self.data)[offset:middle]
        self.after()
        self.blob = spec.Descriptor(spec.LAYER, spec.digest_of(self.data), len(self.data))
        yield self.data[max(offset, middle) :]

    def note(self, what: str, done: int, total: int) -> None:
        self.told.append((what, done, total))


def fail() -> None:
    raise IntegrityError("it is another")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_layout_takes_a_layer_under_its_digest(tmp_path: Path) -> None:
    sink, layer = LayoutSink(tmp_path), Layer()
    assert sink.find(BLOB) is None
    assert sink.take(layer, layer.note) == BLOB
    assert files(tmp_path) == [f"blobs/{BLOB.digest.replace(':', '/')}"]
    assert (tmp_path / files(tmp_path)[0]).read_bytes() == DATA
    assert layer.told == [("a.safetensors", 3500, 7000), ("a.safetensors", 7000, 7000)]
    assert sink.find(BLOB) == "existing"
    assert not (tmp_path / "ingest").exists()


def test_a_layout_does_not_take_half_a_layer_for_one(tmp_path: Path) -> None:
    place = tmp_path / "blobs" / BLOB.digest.replace(":", "/")
    place.parent.mkdir(parents=True)
    place.write_bytes(DATA[:-1])
    assert LayoutSink(tmp_path).find(BLOB) is None


def test_a_layout_keeps_nothing_of_a_wrong_layer(tmp_path: Path) -> None:
    layer = Layer(after=fail)
    with pytest.raises(IntegrityError, match="it is another"):
        LayoutSink(tmp_path).take(layer, layer.note)
    assert files(tmp_path) == []


def test_a_layout_forgets_what_a_killed_bake_has_left(tmp_path: Path) -> None:
    (tmp_path / "ingest").mkdir()
    (tmp_path / "ingest" / "half").write_bytes(b"x")
    LayoutSink(tmp_path)
    assert files(tmp_path) == []


def test_a_layout_that_is_cancelled_takes_no_more(tmp_path: Path) -> None:
    sink = LayoutSink(tmp_path)
    layer = Layer(after=sink.cancel)
    with pytest.raises(CancelledError):
        sink.take(layer, layer.note)
    assert files(tmp_path) == []


def test_two_layers_are_written_at_once(tmp_path: Path) -> None:
    """The first one ends while the second is half written: its folder for that stays."""
    sink, inner = LayoutSink(tmp_path), Layer(data=b"another" * 50)
    outer = Layer(after=lambda: assert_taken(sink, inner))
    assert sink.take(outer, outer.note) == BLOB
    assert len(files(tmp_path)) == 2


def assert_taken(sink: LayoutSink, layer: Layer) -> None:
    taken = sink.take(layer, layer.note)
    assert taken.size == layer.size


def test_a_layout_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file")
    layer = Layer()
    with pytest.raises(UsageError, match=r"^a\.safetensors cannot be written to .*blobs/sha256: .*\.$"):
        LayoutSink(tmp_path).take(layer, layer.note)


def test_a_disk_that_gets_full_is_told_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk_space, "free", lambda _: 1000)
    layer = Layer(after=full)
    with pytest.raises(
        PodkilnError, match=r"blobs/sha256 is full: 1\.0 kB were free, .*: 6\.0 kB are missing"
    ):
        LayoutSink(tmp_path).take(layer, layer.note)
    assert files(tmp_path) == []


def test_a_registry_takes_a_layer_under_its_digest(registry: Registry, repository: Repository) -> None:
    sink, layer = RegistrySink(repository), Layer()
    assert sink.find(BLOB) is None
    assert sink.take(layer, layer.note) == BLOB
    assert registry.blobs == {("you/app", BLOB.digest): DATA}
    assert layer.told[-1] == ("a.safetensors", 7000, 7000)
    assert sink.find(BLOB) == "existing"


def test_a_registry_mounts_what_a_neighbour_holds(registry: Registry, repository: Repository) -> None:
    registry.blobs["you/other", BLOB.digest] = DATA
    sink = RegistrySink(repository, ["you/app", "you/none", "you/other"])
    assert sink.find(BLOB) == "mounted"
    assert ("you/app", BLOB.digest) in registry.blobs
    assert not any("from=you%2Fapp" in hit.path for hit in registry.hits)  # it is no neighbour of its own


def test_neighbours_may_depend_on_the_layer(registry: Registry, repository: Repository) -> None:
    registry.blobs["you/other", BLOB.digest] = DATA
    asked: list[str] = []

    def neighbours(digest: spec.Digest) -> list[str]:
        asked.append(digest)
        return ["you/other"]

    assert RegistrySink(repository, neighbours).find(BLOB) == "mounted"
    assert asked == [BLOB.digest]


def test_a_registry_keeps_nothing_of_a_wrong_layer(registry: Registry, repository: Repository) -> None:
    layer = Layer(after=fail)
    with pytest.raises(IntegrityError, match="it is another"):
        RegistrySink(repository).take(layer, layer.note)
    assert (registry.blobs, registry.uploads, registry.asked("PUT")) == ({}, {}, [])


def test_a_registry_sink_that_is_cancelled_takes_no_more(registry: Registry, repository: Repository) -> None:
    sink, halfway, cancelled = RegistrySink(repository), threading.Event(), threading.Event()

    def wait() -> None:
        halfway.set()
        assert cancelled.wait(10)

    def cancel() -> None:
        halfway.wait(10)
        sink.cancel()
        cancelled.set()

    layer = Layer(after=wait)
    other = threading.Thread(target=cancel)
    other.start()
    with pytest.raises(CancelledError):
        sink.take(layer, layer.note)
    other.join()
    assert (registry.blobs, registry.uploads) == ({}, {})
