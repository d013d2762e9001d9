"""From the image that BuildKit exports to the one that is delivered: canonical layers, a config for them.

The layer of a WORKDIR that comes to nothing is left out: only some exporters have one for a folder that is
there already. The history says `empty_layer` then.

Sources: OCI image-spec v1.1 config.md ("history", "rootfs"), image-layout.md.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from podkiln.canonical_layers import cache, entries
from podkiln.canonical_layers.tree import Tree
from podkiln.errors import IntegrityError
from podkiln.oci import layout, spec
from podkiln.util.executor import submit_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from podkiln.canonical_layers.cache import LayerCache
    from podkiln.canonical_layers.entries import Entry
    from podkiln.canonical_layers.writer import WrittenLayer
    from podkiln.oci.layout import Layout
    from podkiln.oci.spec import Digest

EMPTY: Final = spec.digest_of(bytes(1024))
"""The digest of a tar without entries."""
WORKERS: Final = max(2, os.cpu_count() or 2)


@dataclass(frozen=True)
class _Work:
    """A layer that is to be written: `entries` are those that change something."""

    key: str
    tar: Path
    diff_id: Digest
    entries: Sequence[Entry]


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
    tree, works = Tree(), []
    for key, layer, diff_id, there in zip(
        keys, exported.manifest.layers, exported.config.diff_ids, found, strict=True
    ):
        tar = exported.blob_path(layer.digest)
        if layer.media_type != spec.LAYER:
            raise IntegrityError(f"The build exported a layer as {layer.media_type}, not as a plain tar.")
        changed = tree.lay(entries.read(tar, epoch), tar)
        if there is None:
            works.append(_Work(key, tar, diff_id, changed))
    # The largest first, or it is what all wait for at the end.
    works.sort(key=lambda each: -sum(entry.size for entry in each.entries))

    def write_one(work: _Work) -> WrittenLayer:
        _check(work)
        made = known.write(work.key, work.entries, work.tar)
        if consume:
            work.tar.unlink()
        return made

    with ThreadPoolExecutor(WORKERS) as pool:
        futures: dict[str, Future[WrittenLayer]] = dict(
            zip((each.key for each in works), submit_all(pool, write_one, works), strict=True)
        )
        try:
            return [there or futures[key].result() for key, there in zip(keys, found, strict=True)]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _check(work: _Work) -> None:
    """See that a kept export still is what was exported: it lies where anybody may have changed it."""
    hashed = spec.hasher(work.diff_id)
    with work.tar.open("rb", buffering=0) as file:
        while piece := file.read(layout.CHUNK):
            hashed.update(piece)
    if f"sha256:{hashed.hexdigest()}" != work.diff_id:
        raise IntegrityError(
            f"The kept export of the build is damaged: {work.tar} is not what BuildKit wrote.",
            hint="Delete that file, and build again.",
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
