"""The bytes of an image, where they are: whether each blob is there, and what is in the layers."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from podkiln.errors import IntegrityError
from podkiln.registry.parallel import at_once
from podkiln.verify import runtime_layers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from podkiln.oci.spec import Descriptor, Digest, Manifest
    from podkiln.oci.tar_layer import Segment
    from podkiln.plan.weight_layers import WeightLayerSpec
    from podkiln.registry import Progress, Repository
    from podkiln.verify.compare import LocatedLayer

log = logging.getLogger(__name__)


def blob_findings(repository: Repository, manifest: Manifest) -> dict[Digest, str]:
    """Ask for every blob, several at a time; return what is wrong with some, by digest."""
    blobs = {each.digest: each for each in (*manifest.layers, manifest.config)}
    found = at_once(repository.transport, blobs.values(), partial(_blob_finding, repository))
    told = {digest: finding for digest, finding in zip(blobs, found, strict=True) if finding}
    for each in manifest.layers:
        size = blobs[each.digest].size
        if each.size != size:
            told[each.digest] = f"Its blob {each.digest} is listed with {each.size} and with {size} bytes."
    return told


def _blob_finding(repository: Repository, blob: Descriptor) -> str | None:
    try:
        there = repository.blob_exists(blob)
    except IntegrityError as wrong:
        return str(wrong)
    return None if there else f"Its blob {blob.digest} ({blob.size} bytes) is not in {repository.name}."


def deep_findings(
    repository: Repository, placed: Sequence[LocatedLayer], on_progress: Progress
) -> Iterator[str]:
    """Read weight layers, several at once, and hash the files in them."""
    whole = [each for each in placed if each.blob.size == each.bundle.size]  # else that is said already
    for findings in at_once(repository.transport, whole, partial(_read_layer, repository, on_progress)):
        yield from findings


def runtime_findings(
    repository: Repository, layers: Sequence[tuple[int, Descriptor, Digest]], on_progress: Progress
) -> Iterator[str]:
    """Read layers of the runtime (number, blob, diff_id), for what hides weights or adds to them."""

    def read(layer: tuple[int, Descriptor, Digest]) -> runtime_layers.LayerContents:
        number, blob, diff_id = layer
        chunks = watched(repository.read(blob), f"layer {number}", blob.size, on_progress)
        return runtime_layers.read(number, blob, diff_id, chunks)

    yield from runtime_layers.findings(at_once(repository.transport, layers, read))


def _read_layer(repository: Repository, on_progress: Progress, placed: LocatedLayer) -> list[str]:
    bundle, blob = placed.bundle, placed.blob
    segments = bundle.layout.segments
    hashes = {(segment.start, segment.size): hashlib.sha256() for segment in segments}
    findings = []
    try:
        chunks = watched(repository.read(blob), bundle.name, blob.size, on_progress)
        for segment, piece in _split(chunks, segments):
            hashes[segment.start, segment.size].update(piece)
    except IntegrityError as wrong:
        findings.append(f"Weight layer {bundle.name}: {wrong}")
    hexes = {place: hashed.hexdigest() for place, hashed in hashes.items()}
    return [*findings, *_content_findings(bundle, hexes)]


def _content_findings(bundle: WeightLayerSpec, hexes: Mapping[tuple[int, int], str]) -> Iterator[str]:
    """Compare what a layer holds, by start and size, with the lock: each file, and all around them.

    An empty file begins where the next thing does; it is hashed all the same.
    """
    weights = {weight.path: weight for weight in bundle.weights}
    for segment in bundle.layout.segments:
        found = hexes[segment.start, segment.size]
        if segment.entry:
            weight = weights[segment.entry.path]
            if found != weight.sha256:
                yield f"{weight.path} has the sha256 {found}; the lock gives {weight.sha256}."
            else:
                log.info("%s: sha256 as locked", weight.path)
        elif found != hashlib.sha256(segment.data).hexdigest():
            yield f"Weight layer {bundle.name} differs from what is packed here, at byte {segment.start}."


def watched(chunks: Iterable[bytes], name: str, size: int, on_progress: Progress) -> Iterator[bytes]:
    """Yield the pieces of a blob, and tell how far it was read."""
    done = 0
    for chunk in chunks:
        done += len(chunk)
        on_progress(name, done, size)
        yield chunk


def _split(chunks: Iterable[bytes], segments: Iterable[Segment]) -> Iterator[tuple[Segment, memoryview]]:
    """Deal bytes out to the segments that they belong to, in order; none is copied."""
    waiting = deque(segments)
    at = 0
    for chunk in chunks:
        view = memoryview(chunk)
        while view and waiting:
            end = waiting[0].start + waiting[0].size
            piece, view = view[: end - at], view[end - at :]
            at += len(piece)
            yield waiting[0], piece
            if at == end:
                waiting.popleft()
