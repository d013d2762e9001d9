"""From a runtime that BuildKit made to the image where it is wanted: weights baked in, loaded, pushed.

A push alone streams the weights from their sources into the registry, and none of them touches this disk.
When the image is also wanted here (no push, or --load), they are baked into its OCI layout and go on from
there.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from podkiln import assemble, load, output, registry, remembered, weights
from podkiln.assemble import WeightLayer
from podkiln.reference import Reference
from podkiln.sources import Access
from podkiln.weights import LayoutSink, RegistrySink

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.layout import Layout
    from podkiln.report import Report
    from podkiln.weights import Baked, Sink

log = logging.getLogger(__name__)


def deliver(made: Report, *, push: bool, load_: bool, ca_bundle: Path | None) -> None:
    """Finish one image, and note in its report what was moved and how long that took."""
    assert made.layout is not None  # noqa: S101 - it was just built
    name = Reference.parse(made.image)
    settings = registry.Settings(ca_bundle=ca_bundle)
    here = load_ or not push
    if made.plan.bundles and here:
        _bake_here(made, made.layout, ca_bundle)
    elif made.plan.bundles:
        _bake_there(made, made.layout, name, settings)
    if load_:
        begun = time.monotonic()
        load.load(made.layout, [name])
        made.seconds["load"] = time.monotonic() - begun
    if push:
        begun = time.monotonic()
        with output.Bytes(f"pushing {made.plan.name}") as bar:
            made.pushed = registry.push(made.layout, name, on_progress=bar, settings=settings)
        made.seconds["push"] = time.monotonic() - begun


def _bake_here(made: Report, runtime: Layout, ca_bundle: Path | None) -> None:
    """Bake into the layout on disk, which then holds the whole image."""
    baked = _bake(made, LayoutSink(runtime.path), ca_bundle)
    image = assemble.assemble(runtime.manifest, runtime.config, _layers(baked))
    made.layout = assemble.store(image, runtime.path, index=True)


def _bake_there(made: Report, runtime: Layout, name: Reference, settings: registry.Settings) -> None:
    """Bake into the registry; the layout keeps the runtime and learns the image's two documents."""
    with registry.Repository(name, settings, push=True) as repository:
        baked = _bake(made, RegistrySink(repository), settings.ca_bundle)
    image = assemble.assemble(runtime.manifest, runtime.config, _layers(baked))
    made.layout = assemble.store(image, runtime.path, index=False)


def _bake(made: Report, sink: Sink, ca_bundle: Path | None) -> list[Baked]:
    begun = time.monotonic()
    memory = remembered.path_of(made.plan.described)
    with output.Bytes(f"baking {made.plan.name}") as bar:
        made.baked = weights.bake(
            made.plan.bundles,
            sink,
            Access.from_environment(os.environ, ca_bundle),
            known=remembered.read(memory),
            on_progress=bar,
        )
    made.seconds["bake"] = time.monotonic() - begun
    try:
        if remembered.write(memory, made.baked):
            log.info("%s: the lock remembers the layers now; commit it.", memory)
    except OSError as full:
        log.warning(
            "%s cannot be written (%s): the next bake fetches everything again.", memory, full.strerror
        )
    return made.baked


def _layers(baked: list[Baked]) -> list[WeightLayer]:
    return [WeightLayer(each.bundle, each.blob) for each in baked]
