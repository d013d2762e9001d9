"""From the image that BuildKit exports to the one that is delivered: canonical layers, a config for them.

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
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from podkiln.canonical_layers import cache, entries
from podkiln.canonical_layers.tree import Tree
from podkiln.errors import IntegrityError
from podkiln.oci import layout, spec
from podkiln.util.executor import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from podkiln.canonical_layers.cache import LayerCache
    from podkiln.canonical_layers.entries import Entry
    from podkiln.canonical_layers.writer import WrittenLayer
    from podkiln.oci.layout import Layout
    from podkiln.oci.spec import Digest

T = TypeVar("T")
R = TypeVar("R")
EMPTY: Final = spec.digest_of(bytes(1024))
"""The digest of a tar without entries."""
WORKERS: Final = max(2, os.cpu_count() or 2)


@dataclass(frozen=True)
class _Work:
    """A layer that is to be written: `entries` are those that change something."""

    key: str
    tar: Path
    entries: Sequence[Entry]


class _CancelledError(Exception):
    """Another layer could not be written."""


def write(exported: Layout, place: Path, epoch: int, known: LayerCache, *, consume: bool = False) -> None:
    """Make the layout `place` of the one that BuildKit exported, with layers as plain tars.

    `consume`: each of these is removed once it is written anew, for a disk that does not hold both.

    Raises IntegrityError where the export is damaged, OSError where the disk does not take it.
    """
    keys = cache.keys(exported.config.diff_ids, epoch)
    written: list[WrittenLayer | None] = [known.find(key) for key in keys]
    if not all(written):
        written = list(_written(exported, keys, written, epoch, known, consume=consume))
    config_of, layers = _config(exported, [each for each in written if each], epoch)
    config = spec.canonical_json(config_of)
    manifest = spec.Manifest(
        spec.MANIFEST,
        spec.Descriptor(spec.CONFIG, spec.digest_of(config), len(config)),
        tuple(each.descriptor for each in layers),
    ).encode()
    blobs = place / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest in {each.digest for each in layers}:  # empty ones are alike
        _link(known.blob(digest), blobs / digest.partition(":")[2])
    for document in (config, manifest):
        (blobs / spec.digest_of(document).partition(":")[2]).write_bytes(document)
    (place / "oci-layout").write_bytes(layout.LAYOUT_FILE)
    named = spec.Descriptor(
        spec.MANIFEST, spec.digest_of(manifest), len(manifest), platform=exported.config.platform
    )
    index = {"schemaVersion": 2, "mediaType": spec.INDEX, "manifests": [named.to_json()]}
    (place / "index.json").write_bytes(spec.canonical_json(index))


def _written(
    exported: Layout,
    keys: Sequence[str],
    found: Sequence[WrittenLayer | None],
    epoch: int,
    known: LayerCache,
    *,
    consume: bool,
) -> list[WrittenLayer]:
    """Write what is not remembered, several at once; what lies below each is read first, in one pass."""
    tars = [exported.blob_path(layer.digest) for layer in exported.manifest.layers]
    for layer in exported.manifest.layers:
        if layer.media_type != spec.LAYER:
            raise IntegrityError(f"The build exported a layer as {layer.media_type}, not as a plain tar.")
    given_up = threading.Event()

    def run(work: Callable[[T], R], things: Iterable[T]) -> list[R]:
        with ThreadPoolExecutor(WORKERS) as pool:
            return run_all(pool, work, things, cancel=given_up.set, cancelled=_CancelledError)

    # What lies below decides what is left out, so all of it has to be what it is said to be.
    sums = dict(zip(tars, exported.config.diff_ids, strict=True))
    run(lambda each: _check(each, sums[each], given_up), sums)
    tree, works = Tree(), []
    for key, tar, there in zip(keys, tars, found, strict=True):
        changed = tree.lay(entries.read(tar, epoch), tar)
        if there is None:
            works.append(_Work(key, tar, changed))
    # The largest first, or it is what all wait for at the end.
    works.sort(key=lambda each: -sum(entry.size for entry in each.entries))
    uses = Counter(work.tar for work in works)  # layers without an entry are one file
    lock = threading.Lock()

    def write_one(work: _Work) -> tuple[str, WrittenLayer]:
        made = known.write(work.key, _until(given_up, work.entries), work.tar)
        with lock:
            uses[work.tar] -= 1
            if consume and not uses[work.tar]:
                work.tar.unlink()
        return work.key, made

    made = dict(run(write_one, works))
    return [there or made[key] for key, there in zip(keys, found, strict=True)]


def _until(given_up: threading.Event, items: Iterable[T]) -> Iterator[T]:
    """Yield items until another layer has failed."""
    for item in items:
        if given_up.is_set():
            raise _CancelledError
        yield item


def _check(tar: Path, diff_id: Digest, given_up: threading.Event) -> None:
    """See that a layer of the kept export still is what was exported: it lies where anybody may change it."""
    hashed = spec.hasher(diff_id)
    with tar.open("rb", buffering=0) as file:
        for piece in _until(given_up, iter(lambda: file.read(layout.CHUNK), b"")):
            hashed.update(piece)
    if f"sha256:{hashed.hexdigest()}" != diff_id:
        tar.unlink()
        raise IntegrityError(
            f"The kept export of the build was damaged, and removed: {tar} was not what BuildKit wrote.",
            hint="Build again: that layer is exported anew.",
        )


def _config(
    exported: Layout, written: Sequence[WrittenLayer], epoch: int
) -> tuple[dict[str, Any], list[WrittenLayer]]:
    """Return the config, which tells of no time after the epoch, and the layers that it tells of."""
    document = exported.config.document
    moment = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    history, layers, left = [], [], iter(written)
    for entry in document.get("history", ()):
        told = {**entry, "created": moment}
        if not told.get("empty_layer"):
            layer = next(left)
            if layer.diff_id == EMPTY and str(told.get("created_by", "")).startswith("WORKDIR "):
                told["empty_layer"] = True
            else:
                layers.append(layer)
        history.append(told)
    layers += left  # an image without a history
    rootfs = {"type": "layers", "diff_ids": [each.diff_id for each in layers]}
    return {**document, "created": moment, "rootfs": rootfs, "history": history}, layers


def _link(source: Path, place: Path) -> None:
    """Have a file in another place without another copy of it, where the disk can."""
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)
