"""An image's two documents against the lock: what differs, as sentences. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from pod.util.printable import printable
from podkiln.lock.runtimes import NOTHING
from podkiln.oci import spec
from podkiln.plan.plan import MAX_LAYERS
from podkiln.util.quoting import shown
from podkiln.verify import documents
from podkiln.weights.assemble import FILES, MODEL, WeightLayer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from podkiln.lock.runtimes import PushedLayers
    from podkiln.oci.spec import Descriptor, Digest, ImageConfig, Manifest
    from podkiln.plan.plan import Plan
    from podkiln.plan.weight_layers import WeightLayerSpec
    from podkiln.render.image_config import RenderedConfig as Rendered

_ALGORITHM: Final = "sha256:"
_ROW: Final = {"created", "created_by", "comment", "empty_layer", "author"}
_LAYERS: Final = (spec.LAYER, spec.LAYER_GZIP, spec.LAYER_ZSTD)
_COMMENTS: Final = (None, "", "buildkit.dockerfile.v0")  # BuildKit's own
_BAKED_BY: Final = "podkiln bake "


@dataclass(frozen=True)
class RemoteImage:
    """An image as a registry holds it."""

    manifest: Manifest
    config: ImageConfig


@dataclass(frozen=True)
class LocatedLayer:
    """A weight layer of the lock, found in an image."""

    bundle: WeightLayerSpec
    number: int
    blob: Descriptor


def compare(
    plan: Plan,
    rendered: Rendered,
    known: Mapping[Digest, Digest],
    held: RemoteImage,
    *,
    remembered: PushedLayers = NOTHING,
    deep: bool = False,
) -> list[str]:
    """Return what differs between an image and its lock, as far as its two documents tell.

    `remembered`: what the lock knows of the runtime's layers and podkiln's own. `deep`: what is in the layers
    is compared too, so that a digest which the lock does not know says nothing.
    """
    shape = [*_type_findings(held, plan.described.platform), *_count_findings(held)]
    told = [
        *documents.of_config(rendered, held.config),
        *documents.of_apt(plan, held.config),
        *documents.of_substitutes(rendered, held.config),
    ]
    if _count_findings(held):  # no saying which history is that of which layer
        return [*shape, *told]
    found = placed(plan.bundles, known, held)
    layers = [
        finding
        for number, each in zip(_numbers(found, plan.above, len(held.manifest.layers)), found, strict=True)
        for finding in _layer_findings(number, each, known, held)
    ]
    unknown = () if deep else _unknown(found, known)
    weights = [*_missing(plan.bundles, found), *layers, *unknown, *_strangers(found, held)]
    return [
        *(*shape, *told, *weights),
        *_plain_layers(rendered, found, held),
        *_runtime_findings(rendered, remembered, found, held),
        *_history_findings(rendered, remembered, found, held),
    ]


def _numbers(found: Sequence[LocatedLayer], above: Sequence[WeightLayerSpec], layers: int) -> list[int]:
    """Return where weight layers are to lie: the first ones of the image, but for those on top."""
    high = [each.bundle in above for each in found]
    return [layers - sum(high[at:]) if top else at - sum(high[:at]) for at, top in enumerate(high)]


def _type_findings(held: RemoteImage, wanted: str) -> Iterator[str]:
    manifest = held.manifest
    if manifest.media_type != spec.MANIFEST:
        yield f"Its manifest is of type {shown(manifest.media_type)}, not {spec.MANIFEST}."
    if manifest.config.media_type != spec.CONFIG:
        yield f"Its config is of type {shown(manifest.config.media_type)}, not {spec.CONFIG}."
    for number, layer in enumerate(manifest.layers):
        if layer.media_type not in _LAYERS:
            yield f"Its layer {number} is of type {shown(layer.media_type)}, not a layer type of OCI."
    named = (manifest.config.digest, *(each.digest for each in manifest.layers), *held.config.diff_ids)
    other = next((digest for digest in named if not digest.startswith(_ALGORITHM)), None)
    if other:
        yield f"It names {spec.short(other)}: engines unpack what is named by sha256 alone."
    platform = spec.Platform.parse(wanted)
    if not held.config.platform.serves(platform):
        yield f"It is an image for {printable(str(held.config.platform))}, not {platform}."


def too_many(manifest: Manifest) -> list[str]:
    """Say so when no engine starts an image of so many layers."""
    layers = len(manifest.layers)
    if layers > MAX_LAYERS:
        return [f"It has {layers} layers; engines start images of at most {MAX_LAYERS}."]
    return []


def _count_findings(held: RemoteImage) -> list[str]:
    layers, config = len(held.manifest.layers), held.config
    findings = too_many(held.manifest)
    if len(config.diff_ids) != layers:
        findings.append(f"It has {layers} layers and {len(config.diff_ids)} diff_ids: these must agree.")
    if len(config.layer_history) != layers:
        told = len(config.layer_history)
        findings.append(f"It has {layers} layers, and its history lists {told}: these must agree.")
    return findings


def _plain_layers(rendered: Rendered, found: Sequence[LocatedLayer], held: RemoteImage) -> Iterator[str]:
    """Name the runtime's layers that carry more than their digest."""
    weights = {each.number for each in found}
    # BuildKit notes on its layers which time it gave to their files; not all of its versions take that off.
    plain: tuple[dict[str, str], ...] = ({}, {"buildkit/rewritten-timestamp": rendered.epoch})
    for number, layer in enumerate(held.manifest.layers):
        if number not in weights and layer.annotations not in plain and MODEL not in layer.annotations:
            told = shown(dict(layer.annotations))
            yield f"Its layer {number} has the annotations {told}; podkiln writes none."


def _runtime_findings(
    rendered: Rendered, remembered: PushedLayers, found: Sequence[LocatedLayer], held: RemoteImage
) -> Iterator[str]:
    """Compare the runtime's layers, and podkiln's own above them, with what the lock remembers of a push."""
    weights = {each.number for each in found}
    layers = zip(held.manifest.layers, held.config.diff_ids, strict=True)
    image = [(number, *each) for number, each in enumerate(layers) if number not in weights]
    below = len(image) - rendered.layers_above
    runtime = remembered.runtime.layers if remembered.runtime else ()
    if runtime and below != len(runtime):
        yield f"It has {below} layers of the runtime; the lock remembers {len(runtime)} of the last push."
    own = remembered.own.layers if remembered.own else ()
    pairs = [*zip(image[: max(below, 0)], runtime, strict=False), *zip(image[below:], own, strict=False)]
    for (number, layer, diff_id), wanted in pairs:
        what = f"Its layer {number}"
        if layer.digest != wanted.digest:
            yield f"{what} is {layer.digest}; the lock remembers {wanted.digest} of the last push."
        elif (layer.size, layer.media_type) != (wanted.size, spec.LAYER_ZSTD):
            told = f"{layer.size} bytes as {shown(layer.media_type)}"
            yield f"{what} is listed with {told}; it has {wanted.size} as {spec.LAYER_ZSTD}."
        elif diff_id != wanted.diff_id:
            yield f"{what} is listed to unpack to {diff_id}; it unpacks to {wanted.diff_id}."


def _history_findings(
    rendered: Rendered, remembered: PushedLayers, found: Sequence[LocatedLayer], held: RemoteImage
) -> Iterator[str]:
    """Compare what the history tells: of the runtime with the Dockerfile, of the base with the last push."""
    layers = held.config.layer_history
    weights = {id(layers[each.number]) for each in found}
    others = [row for row in held.config.history if id(row) not in weights]
    rows = [row for row in others if not _is_baked(row)]
    for row in filter(_is_baked, others):
        if row.get("empty_layer"):
            yield f"Its history lists weights, {shown(row['created_by'])}, that have no layer."
    own = rows[len(rows) - len(rendered.steps) :] if len(rows) > len(rendered.steps) else ()
    base = rows[: len(rows) - len(own)]
    if not own or all(row.get("empty_layer") for row in base):
        yield (
            f"Its history lists {len(rows)} steps of the runtime; the lock gives {len(rendered.steps)} "
            "above the base image."
        )
        return
    yield from islice(_row_findings(rendered, own, held), 1)
    known = remembered.runtime
    if known and [dict(row) for row in base] != list(known.history):
        yield (
            f"What its history tells of the base image, in {len(base)} entries, is not what the lock "
            "remembers of the last push."
        )


def _row_findings(rendered: Rendered, own: Sequence[Mapping[str, Any]], held: RemoteImage) -> Iterator[str]:
    """Compare entry by entry. One that is missing shifts all others, so only the first finding counts."""
    for row, step in zip(own, rendered.steps, strict=True):
        if step.differs(row):
            told, given = shown(row.get("created_by")), shown(step.text)
            if told == given:
                yield f"Its history gives {told} another end than the lock, or a layer, or none."
            else:
                yield f"Its history lists {told} where the lock gives {given}."
        if row.get("author") or row.get("comment") not in _COMMENTS:
            yield f"Its history has {shown(step.text)} with an author or a comment: {shown(dict(row))}."
    for row in held.config.history:
        if row.keys() - _ROW:  # a key in another case is one that engines read
            yield f"Its history has an entry with more than is known of entries: {shown(dict(row))}."
    for row in own:
        if row.get("created") != rendered.created:
            told = shown(dict(row))
            yield f"Its history lists {told}, which is not how it is written at {rendered.created}."


def _is_baked(row: Mapping[str, Any]) -> bool:
    """Tell whether a history entry says that it is of weights."""
    return str(row.get("created_by") or "").startswith(_BAKED_BY)


def placed(
    bundles: Sequence[WeightLayerSpec], known: Mapping[Digest, Digest], held: RemoteImage
) -> list[LocatedLayer]:
    """Find the layer of each bundle, by any of what makes it known: files, digest or history."""
    layers = list(zip(held.manifest.layers, held.config.layer_history, strict=False))
    found: list[LocatedLayer] = []
    for bundle in bundles:
        taken = {each.number for each in found}
        for number, (layer, told) in enumerate(layers):
            wanted = WeightLayer(bundle, layer)
            if number not in taken and (
                layer.annotations.get(FILES) == wanted.descriptor.annotations[FILES]
                or layer.digest == known.get(bundle.recipe)
                or told.get("created_by") == wanted.history(None)["created_by"]
            ):
                found.append(LocatedLayer(bundle, number, layer))
                break
    return found


def _missing(bundles: Sequence[WeightLayerSpec], found: Sequence[LocatedLayer]) -> Iterator[str]:
    there = [each.bundle for each in found]
    for bundle in bundles:
        if bundle not in there:
            yield f"It lacks the weights {bundle.name} of {bundle.model} ({bundle.size} bytes)."


def _layer_findings(
    number: int, found: LocatedLayer, known: Mapping[Digest, Digest], held: RemoteImage
) -> Iterator[str]:
    """Compare one weight layer with what `bake` would have written as the number-th of all."""
    bundle, blob, config = found.bundle, found.blob, held.config
    wanted = WeightLayer(bundle, blob)
    name = f"Weight layer {bundle.name}"
    if found.number != number:
        order = "weights lie in declared order, below the runtime unless they are declared above it"
        yield f"{name} is layer {found.number}, not {number}: {order}."
    if blob.size != bundle.size:
        yield f"{name} has {blob.size} bytes; the lock gives {bundle.size}."
    digest = known.get(bundle.recipe)
    if digest not in (None, blob.digest):
        yield f"{name} has the digest {blob.digest}; the lock gives {digest}."
    if blob.media_type != spec.LAYER:
        yield f"{name} is of type {shown(blob.media_type)}; weights are not compressed: {spec.LAYER}."
    if config.diff_ids[found.number] != blob.digest:
        diff_id = config.diff_ids[found.number]
        yield f"{name} has the digest {blob.digest}, and another diff_id: {diff_id}."
    if not blob.annotations and digest == blob.digest:
        yield (
            f"{name} has no annotations. Its digest is that of the lock, so its files are right; copying "
            "through an archive loses annotations (docker save, skopeo to oci-archive): copy the image from "
            "registry to registry, or push it again."
        )
    elif dict(blob.annotations) != wanted.descriptor.annotations:
        yield f"{name} has annotations that do not name the files, sizes and hashes of the lock."
    told = config.layer_history[found.number]
    if dict(told) != wanted.history(config.document.get("created")):
        by = shown(told.get("created_by"))
        yield f"{name} has a history entry that differs from the lock: {by}."


def _unknown(found: Sequence[LocatedLayer], known: Mapping[Digest, Digest]) -> Iterator[str]:
    """Name the layers that no bake with this lock has made: what is in them may be anything."""
    for each in found:
        if each.bundle.recipe not in known:
            yield (
                f"Weight layer {each.bundle.name} has a digest that the lock does not know, so its content "
                "is not proven: read it with --deep, or commit the layers.json that its bake wrote."
            )


def _strangers(found: Sequence[LocatedLayer], held: RemoteImage) -> Iterator[str]:
    """Name the weight layers that the variant does not bake."""
    known = {each.number for each in found}
    told = held.config.layer_history
    for number, layer in enumerate(held.manifest.layers):
        if number in known:
            continue
        if MODEL in layer.annotations:
            model = printable(layer.annotations[MODEL])
            yield f"Its layer {number} holds weights of {model} that the lock does not give to this image."
        elif _is_baked(told[number]):
            by = shown(told[number]["created_by"])
            yield f"Its history lists layer {number} as weights, {by}, which the lock does not give it."
