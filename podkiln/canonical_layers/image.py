"""From the image that BuildKit exports to the one that is delivered: canonical layers, and a config for them.

The layer of a WORKDIR that comes to nothing is left out: only some exporters have one for a folder that is
there already. The history says `empty_layer` then.

Sources: OCI image-spec v1.1 config.md ("history", "rootfs"), image-layout.md.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from podkiln.canonical_layers import cache, exported, writer
from podkiln.canonical_layers.tree import Tree
from podkiln.oci import layout, spec
from podkiln.util import disk_space
from podkiln.util.executor import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from podkiln.canonical_layers.cache import LayerCache
    from podkiln.canonical_layers.entries import Entry
    from podkiln.canonical_layers.exported import ExportedImage, ExportedLayer
    from podkiln.canonical_layers.writer import WrittenLayer
    from podkiln.oci.spec import Digest

Progress: TypeAlias = "Callable[[Digest, int, int], None]"
T = TypeVar("T")
K = TypeVar("K", bound=str)
R = TypeVar("R")
EMPTY: Final = spec.digest_of(bytes(1024))
"""The digest of a tar without entries."""
WORKERS: Final = max(2, os.cpu_count() or 2)


@dataclass(frozen=True)
class _Work:
    """A layer that is to be written: `entries` are those that change something."""

    key: str
    layer: ExportedLayer
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Below:
    """Layers that are written already: all below those that a build of the uppermost ones has exported.

    Attributes:
        layers: What stands in their place in the image.
        exported: How many of the exported layers stand for them; these are the lowest.
        folders: Folders that they have beyond those.
    """

    layers: Sequence[WrittenLayer] = ()
    exported: int = 0
    folders: Sequence[Entry] = ()


class _CancelledError(Exception):
    """Another layer could not be written."""


@dataclass(frozen=True)
class _Writing:
    """Several layers at once, until one of them fails."""

    epoch: int
    known: LayerCache
    consume: Collection[Digest]
    below: Below
    on_progress: Progress
    moved: Counter[Digest] = field(default_factory=Counter)
    given_up: threading.Event = field(default_factory=threading.Event)

    def layers(self, image: ExportedImage) -> list[WrittenLayer]:
        """Return what all layers come to; those that are not remembered are written."""
        found = self._layers(image)
        return [*self.below.layers, *found[self.below.exported :]]

    def _layers(self, image: ExportedImage) -> list[WrittenLayer]:
        keys = _keys(image, self.epoch)
        written = self.below.layers[: self.below.exported]
        found = [*written, *self._known(keys[len(written) :], image.layers[len(written) :])]
        if all(found):
            return [each for each in found if each]
        lacking = (layer.size for layer, there in zip(image.layers, found, strict=True) if there is None)
        with disk_space.room(self.known.folder, sum(lacking)):
            return self._made(image, keys, found)

    def _made(
        self, image: ExportedImage, keys: Sequence[str], found: Sequence[WrittenLayer | None]
    ) -> list[WrittenLayer]:
        """Write the layers that are not `found`; return all."""
        # A layer that is to be written is read in full; of one that is remembered, what it holds may be, too.
        held: dict[Digest, list[Entry] | None] = {
            layer.diff_id: self.known.entries(layer.diff_id, self.epoch) if there else None
            for layer, there in zip(image.layers, found, strict=True)
        }
        unread = {layer.diff_id: layer for layer in image.layers if held[layer.diff_id] is None}
        largest_first = sorted(unread.values(), key=lambda each: -each.size)
        held.update(self._run(self._read, largest_first))
        tree, works = Tree(), []
        tree.lay(self.below.folders)
        for key, layer, there in zip(keys, image.layers, found, strict=True):
            changed = tree.lay(held[layer.diff_id] or ())
            if there is None:
                works.append(_Work(key, layer, changed))
        made = self._write(works)
        for layer in image.layers:
            if layer.diff_id in self.consume:
                layer.remove()
        return [there or made[key] for key, there in zip(keys, found, strict=True)]

    def _known(self, keys: Sequence[str], layers: Sequence[ExportedLayer]) -> list[WrittenLayer | None]:
        """Return what is remembered; several are hashed at once, where they were not today."""

        def find(wanted: tuple[str, ExportedLayer]) -> tuple[str, WrittenLayer | None]:
            def told(done: int, whole: int) -> None:
                if self.given_up.is_set():
                    raise _CancelledError
                self.on_progress(wanted[1].diff_id, done, whole)

            return wanted[0], self.known.find(wanted[0], told)

        found = self._run(find, zip(keys, layers, strict=True))
        return [found[key] for key in keys]

    def _read(self, layer: ExportedLayer) -> tuple[Digest, list[Entry]]:
        def pieces(tar: Iterable[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
            for piece, count in self._until(tar):
                self._progress(layer, count)
                yield piece, count

        entries = exported.read(layer, self.epoch, pieces)
        self.known.remember_entries(layer.diff_id, self.epoch, entries)
        return layer.diff_id, entries

    def _write(self, works: list[_Work]) -> dict[str, WrittenLayer]:
        # The largest first, or it is what all wait for at the end.
        works.sort(key=lambda each: -sum(entry.size for entry in each.entries))
        uses = Counter(work.layer.diff_id for work in works)  # one layer may stand in several places

        def entries(work: _Work) -> Iterator[Entry]:
            done, whole = 0, sum(entry.size for entry in work.entries) or 1
            for entry in self._until(work.entries):
                before = work.layer.size * done // whole
                done += entry.size
                self._progress(work.layer, work.layer.size * done // whole - before)
                yield entry

        def write_one(work: _Work) -> tuple[str, WrittenLayer]:
            consume = work.layer.diff_id in self.consume and uses[work.layer.diff_id] == 1
            try:
                with work.layer.open(work.entries if consume else None) as tar:
                    made = self.known.write(work.key, entries(work), tar)
            except writer.ChangedError:
                raise exported.damaged(work.layer) from None
            self._progress(work.layer, 2 * work.layer.size)
            return work.key, made

        return self._run(write_one, works)

    def _run(self, work: Callable[[T], tuple[K, R]], things: Iterable[T]) -> dict[K, R]:
        with ThreadPoolExecutor(WORKERS) as pool:
            return dict(run_all(pool, work, things, cancel=self.given_up.set, cancelled=_CancelledError))

    def _progress(self, layer: ExportedLayer, count: int) -> None:
        """Tell of more bytes of a layer, which is read and then written."""
        whole = 2 * layer.size
        self.moved[layer.diff_id] = min(whole, self.moved[layer.diff_id] + count)
        self.on_progress(layer.diff_id, self.moved[layer.diff_id], whole)

    def _until(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items until another layer has failed."""
        for item in items:
            if self.given_up.is_set():
                raise _CancelledError
            yield item


def write(
    image: ExportedImage,
    document: Mapping[str, Any],
    place: Path,
    epoch: int,
    known: LayerCache,
    consume: Collection[Digest] = (),
    below: Below | None = None,
    on_progress: Progress = lambda *_: None,
) -> None:
    """Make the layout `place` of an image that BuildKit has exported.

    Args:
        image: What was exported.
        document: The config but for its `rootfs`.
        place: The folder to make.
        epoch: The latest time that a file may have, in seconds.
        known: Where written layers are remembered.
        consume: Exported layers that are removed as they are read, for a disk that does not hold both.
        below: What is not written again, nor put into the folder, where only the uppermost layers were built.
        on_progress: Told of each layer's digest, as exported, and its bytes: done, and in all.

    Raises IntegrityError where the export is damaged, OSError where the disk does not take it.
    """
    config_of, layers = _config(
        document, _Writing(epoch, known, consume, below or Below(), on_progress).layers(image)
    )
    there = {each.digest for each in below.layers} if below else set()
    blobs = place / "blobs" / "sha256"
    own = {each.digest: each for each in layers if each.digest not in there}  # empty ones are alike
    with disk_space.room(place.parent, sum(each.size for each in own.values())):
        blobs.mkdir(parents=True)
        for digest in own:
            link(known.blob(digest), blobs / digest.partition(":")[2])
        config = spec.canonical_json(config_of)
        write_documents(place, config, [each.descriptor for each in layers], image.config.platform)


def write_documents(
    place: Path, config: bytes, layers: Sequence[spec.Descriptor], platform: spec.Platform
) -> Digest:
    """Write config, manifest and index of a layout that has its blobs; returns the manifest's digest."""
    named = spec.Descriptor(spec.CONFIG, spec.digest_of(config), len(config))
    manifest = spec.Manifest(spec.MANIFEST, named, tuple(layers)).encode()
    for data in (config, manifest):
        (place / "blobs" / "sha256" / spec.digest_of(data).partition(":")[2]).write_bytes(data)
    (place / "oci-layout").write_bytes(layout.LAYOUT_FILE)
    digest = spec.digest_of(manifest)
    listed = spec.Descriptor(spec.MANIFEST, digest, len(manifest), platform=platform)
    index = {"schemaVersion": 2, "mediaType": spec.INDEX, "manifests": [listed.to_json()]}
    (place / "index.json").write_bytes(spec.canonical_json(index))
    return digest


def unneeded(image: ExportedImage, later: Iterable[ExportedImage], epoch: int) -> set[Digest]:
    """Return the layers of an image that are not read again for images which come later.

    What is equal from the lowest layer on is remembered; the same layer above others is written once more.
    """
    known = set(_keys(image, epoch))
    needed = {
        layer.diff_id
        for other in later
        for layer, key in zip(other.layers, _keys(other, epoch), strict=True)
        if key not in known
    }
    return {layer.diff_id for layer in image.layers} - needed


def _keys(image: ExportedImage, epoch: int) -> list[str]:
    return cache.keys([each.diff_id for each in image.layers], epoch)


def _config(
    document: Mapping[str, Any], written: Sequence[WrittenLayer]
) -> tuple[dict[str, Any], list[WrittenLayer]]:
    """Return the config with its `rootfs`, and the layers that it tells of."""
    history, layers, left = [], [], iter(written)
    for entry in document["history"]:
        told = dict(entry)
        if not told.get("empty_layer"):
            layer = next(left)
            if layer.diff_id == EMPTY and str(told.get("created_by", "")).startswith("WORKDIR "):
                told["empty_layer"] = True
            else:
                layers.append(layer)
        history.append(told)
    rootfs = {"type": "layers", "diff_ids": [each.diff_id for each in layers]}
    return {**document, "rootfs": rootfs, "history": history}, layers


def link(source: Path, place: Path) -> None:
    """Have a file in another place without another copy of it, where the disk can."""
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)
