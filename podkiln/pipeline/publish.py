"""From the runtime that BuildKit made to the requested image: weights baked in, loaded, pushed.

A push alone streams the weights from their sources into the registry, and none of them touches this disk.
When the image is also wanted here (no push, or --load), they are baked into its OCI layout and go on from
there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from podkiln import registry
from podkiln.build import docker_load
from podkiln.lock import layers
from podkiln.oci.reference import Reference
from podkiln.util import console
from podkiln.util.executor import JOBS
from podkiln.weights import assemble, bake
from podkiln.weights.assemble import WeightLayer
from podkiln.weights.bake import remembered
from podkiln.weights.layer_lookup import LayerSources, SourceRepositories
from podkiln.weights.sink import LayoutSink, RegistrySink
from podkiln.weights.source import SourceClient
from podkiln.weights.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from podkiln.oci.layout import Layout
    from podkiln.pipeline.report import Report
    from podkiln.plan.plan import Plan
    from podkiln.weights.assemble import AssembledImage
    from podkiln.weights.bake import BakeResult
    from podkiln.weights.sink import LayerDestination

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TransferOptions:
    """What the command line says of the ways that bytes take.

    Attributes:
        ca_bundle: PEM file of CAs to trust.
        mount_from: Repositories of the same registry that may hold some of the blobs.
        copy_from: Repositories of any registry that may hold some of the weight layers.
        spool: Folder to write weight layers to before they are sent.
        jobs: Layers and blobs moved at once.
        confirmed: What registries have confirmed to hold since this run began.
    """

    ca_bundle: Path | None = None
    mount_from: Sequence[str] = ()
    copy_from: Sequence[Reference] = ()
    spool: Path | None = None
    jobs: int = JOBS
    confirmed: registry.Confirmed = field(default_factory=registry.Confirmed, compare=False)


def deliver(made: Report, route: TransferOptions, *, push: bool, load_: bool) -> None:
    """Finish one image, and note in its report what was moved and how long that took."""
    assert made.layout is not None  # noqa: S101 - it was just built
    name = Reference.parse(made.image)
    places = places_of(made.plan, route)
    with _report_lock_change(layers.path_of(made.plan.described)):
        _deliver(made, made.layout, name, places, route, push=push, load_=load_)


def _deliver(
    made: Report,
    built: Layout,
    name: Reference,
    places: LayerSources,
    route: TransferOptions,
    *,
    push: bool,
    load_: bool,
) -> None:
    if made.plan.bundles and (load_ or not push):
        _bake_here(made, built, places if push else LayerSources(copy_from=places.copy_from), route)
    elif made.plan.bundles:
        _bake_there(made, built, name, places, route)
    image = made.layout or built
    if load_:
        begun = time.monotonic()
        docker_load.load(image, [name])
        made.seconds["load"] = time.monotonic() - begun
    if push:
        _push(made, image, name, places, route)


def places_of(made: Plan, route: TransferOptions) -> LayerSources:
    """Return where the layers of a plan may be: what the user said, and what the lock remembers."""
    known = layers.places(layers.path_of(made.described))
    return LayerSources(route.mount_from, route.copy_from, known)


def settings(route: TransferOptions) -> registry.RegistryOptions:
    """Return the options of registry connections."""
    return registry.RegistryOptions(ca_bundle=route.ca_bundle, jobs=route.jobs, confirmed=route.confirmed)


def _push(
    made: Report, layout: Layout, name: Reference, places: LayerSources, route: TransferOptions
) -> None:
    begun = time.monotonic()
    with console.Bytes(f"pushing {made.plan.name}") as bar:
        made.pushed = registry.push(
            layout, name, on_progress=bar, settings=settings(route), mount_from=places.neighbours(name)
        )
    made.seconds["push"] = time.monotonic() - begun
    _remember(made.plan, made.baked, name)


def _bake_here(made: Report, runtime: Layout, places: LayerSources, route: TransferOptions) -> None:
    """Bake into the layout on disk, which then holds the whole image."""
    baked = _bake(made, LayoutSink(runtime.path), places, route)
    image = _assembled(made.plan, runtime, baked)
    made.layout = assemble.store(image, runtime.path, index=True)


def _bake_there(
    made: Report, runtime: Layout, name: Reference, places: LayerSources, route: TransferOptions
) -> None:
    """Bake into the registry; the layout keeps the runtime and learns the image's two documents."""
    neighbours = places.neighbours(name)
    with registry.Repository(name, settings(route), push=True, mount_from=neighbours) as repository:
        sink = RegistrySink(repository, partial(places.neighbours, name))
        baked = _bake(made, sink, places, route, Spool(route.spool) if route.spool else None, name)
    image = _assembled(made.plan, runtime, baked)
    made.layout = assemble.store(image, runtime.path, index=False)


def _bake(
    made: Report,
    sink: LayerDestination,
    places: LayerSources,
    route: TransferOptions,
    spool: Spool | None = None,
    target: Reference | None = None,
) -> list[BakeResult]:
    begun = time.monotonic()
    with (
        SourceRepositories(places, settings(route), besides=target) as origins,
        console.Bytes(f"baking {made.plan.name}") as bar,
    ):
        made.baked = bake.bake(
            made.plan.bundles,
            sink,
            SourceClient.from_environment(os.environ, route.ca_bundle),
            known=layers.read(layers.path_of(made.plan.described)),
            origins=origins,
            spool=spool,
            jobs=route.jobs,
            on_progress=bar,
            on_baked=lambda each: _remember(made.plan, [each], target),
        )
    made.seconds["bake"] = time.monotonic() - begun
    return made.baked


def _remember(plan: Plan, baked: Sequence[BakeResult], place: Reference | None) -> None:
    """Record digests and repositories of the layers in layers.json."""
    memory = layers.path_of(plan.described)
    try:
        if baked:
            layers.write(memory, remembered(baked), place)
    except OSError as full:
        log.warning(
            "%s cannot be written (%s): the next bake fetches everything again.", memory, full.strerror
        )


@contextlib.contextmanager
def _report_lock_change(memory: Path) -> Iterator[None]:
    """Report at the end, also after a failed bake, that layers.json has changed."""
    before = _content(memory)
    try:
        yield
    finally:
        if _content(memory) != before:
            log.info("%s: the lock remembers the layers now; commit it.", memory)


def _content(memory: Path) -> bytes:
    with contextlib.suppress(OSError):
        return memory.read_bytes()
    return b""


def _assembled(plan: Plan, runtime: Layout, baked: Sequence[BakeResult]) -> AssembledImage:
    """Put the weight layers above or below the runtime, as the variant says."""
    high = plan.above
    below = [WeightLayer(each.bundle, each.blob) for each in baked if each.bundle not in high]
    above = [WeightLayer(each.bundle, each.blob) for each in baked if each.bundle in high]
    return assemble.assemble(runtime.manifest, runtime.config, below, above)
