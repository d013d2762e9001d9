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
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from podkiln import registry
from podkiln.build import docker_load
from podkiln.lock import layers, runtimes
from podkiln.pipeline.request import image_name, named_sources
from podkiln.render import runtime_recipe
from podkiln.util import console
from podkiln.weights import assemble, bake
from podkiln.weights.assemble import WeightLayer
from podkiln.weights.bake import remembered
from podkiln.weights.layer_lookup import LayerSources, SourceRepositories
from podkiln.weights.sink import LayoutSink, RegistrySink
from podkiln.weights.source import SourceClient
from podkiln.weights.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from podkiln.lock.runtimes import OwnLayers, RememberedRuntime
    from podkiln.oci.layout import Layout
    from podkiln.oci.reference import Reference
    from podkiln.options import BuildRequest
    from podkiln.plan.plan import Plan
    from podkiln.registry import PushReport, RegistryOptions
    from podkiln.weights.bake import BakeResult
    from podkiln.weights.sink import LayerDestination

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """An image that is where it is wanted; `seconds` are those of each step."""

    layout: Layout
    seconds: Mapping[str, float]
    baked: Sequence[BakeResult] = ()
    pushed: PushReport | None = None


@dataclass(frozen=True)
class Publisher:
    """Finishes one image.

    Attributes:
        plan: What is in it, and where it is wanted.
        name: The image's name.
        sources: Where its layers may be already.
        settings: How registries are spoken to; one for all of a run, with what they have confirmed in it.
    """

    plan: Plan
    name: Reference
    sources: LayerSources
    settings: RegistryOptions

    @classmethod
    def of(cls, plan: Plan, settings: RegistryOptions) -> Self:
        """Return the publisher of a plan's image. Raises UsageError, or LockError for a damaged memory."""
        return cls(plan, image_name(plan), sources_of(plan), settings)

    def publish(self, runtime: Layout) -> Published:
        """Bake weights into a runtime, or beside it into the registry; then load it, and push it."""
        push, load = bool(self.plan.request.image.push), self.plan.request.output.load
        seconds: dict[str, float] = {}
        baked: list[BakeResult] = []
        image, pushed = runtime, None
        with _report_lock_change(layers.path_of(self.plan.described)):
            if self.plan.bundles:
                here = load or not push
                with _timed(seconds, "bake"):
                    baked = self._bake_here(runtime) if here else self._bake_there()
                image = assemble.store(self._assembled(runtime, baked), runtime.path, index=here)
            if load:
                with _timed(seconds, "load"):
                    docker_load.load(image, [self.name])
            if push:
                with _timed(seconds, "push"):
                    pushed = self._push(image)
                self._remember(baked, self.name)
        return Published(image, seconds, baked, pushed)

    def _push(self, image: Layout) -> PushReport:
        with console.Bytes(f"pushing {self.plan.name}") as bar:
            return registry.push(
                image,
                self.name,
                on_progress=bar,
                settings=self.settings,
                mount_from=self.sources.neighbours(self.name),
            )

    def _bake_here(self, runtime: Layout) -> list[BakeResult]:
        """Bake into the layout on disk, which then holds the whole image."""
        push = self.plan.request.image.push
        sources = self.sources if push else LayerSources(copy_from=self.sources.copy_from)
        return self._bake(LayoutSink(runtime.path), sources)

    def _bake_there(self) -> list[BakeResult]:
        """Bake into the registry; the layout only keeps the runtime and learns the image's two documents."""
        neighbours = self.sources.neighbours(self.name)
        with registry.Repository(self.name, self.settings, push=True, mount_from=neighbours) as repository:
            sink = RegistrySink(repository, partial(self.sources.neighbours, self.name))
            return self._bake(sink, self.sources, self.name)

    def _bake(
        self, sink: LayerDestination, sources: LayerSources, target: Reference | None = None
    ) -> list[BakeResult]:
        transfer, network = self.plan.request.transfer, self.plan.request.network
        with (
            SourceRepositories(sources, self.settings, besides=target) as origins,
            console.Bytes(f"baking {self.plan.name}") as bar,
        ):
            return bake.bake(
                self.plan.bundles,
                sink,
                SourceClient.from_environment(os.environ, network.ca_bundle),
                known=layers.read(layers.path_of(self.plan.described)),
                origins=origins,
                spool=Spool(transfer.spool) if transfer.spool and target else None,
                jobs=transfer.jobs,
                on_progress=bar,
                on_baked=lambda each: self._remember([each], target),
            )

    def _remember(self, baked: Sequence[BakeResult], place: Reference | None) -> None:
        """Have the lock know what layers came to, and where they are."""
        memory = layers.path_of(self.plan.described)
        try:
            if baked:
                layers.write(memory, remembered(baked), place)
        except OSError as full:
            log.warning(
                "%s cannot be written (%s): the next bake fetches everything again.", memory, full.strerror
            )

    def remember_runtime(self, runtime: RememberedRuntime | None, own: OwnLayers) -> None:
        """Have the lock know the layers of an image that was pushed: its runtime's, if built, and our own."""
        memory = runtimes_of(self.plan)
        # What had a substitute stands in a file of this machine, which is none to commit.
        reporting = contextlib.nullcontext() if self.plan.substituted else _report_lock_change(memory)
        with reporting:
            try:
                if runtime:
                    runtimes.write(memory, runtime_recipe.of(self.plan), runtime, self.name)
                runtimes.write_own(memory, runtime_recipe.of_own(self.plan), own)
            except OSError as full:
                log.warning(
                    "%s cannot be written (%s): the next push builds the runtime again.",
                    memory,
                    full.strerror,
                )

    def _assembled(self, runtime: Layout, baked: Sequence[BakeResult]) -> assemble.AssembledImage:
        """Put the weight layers where the variant wants them."""
        high = self.plan.above
        below = [WeightLayer(each.bundle, each.blob) for each in baked if each.bundle not in high]
        above = [WeightLayer(each.bundle, each.blob) for each in baked if each.bundle in high]
        return assemble.assemble(runtime.manifest, runtime.config, below, above)


def sources_of(made: Plan) -> LayerSources:
    """Return where the layers of a plan may be: what the user said, and what the lock remembers."""
    known = layers.places(layers.path_of(made.described))
    known |= runtimes.places(runtimes_of(made))
    return replace(named_sources(made.request, made.described), remembered=known)


def runtimes_of(made: Plan) -> Path:
    """Return the file that remembers what a plan's runtime came to."""
    return runtimes.path_of(made.described, substituted=bool(made.substituted))


def registry_options(request: BuildRequest) -> RegistryOptions:
    """Return the options of registry connections."""
    return registry.RegistryOptions(ca_bundle=request.network.ca_bundle, jobs=request.transfer.jobs)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Take down how long a step took."""
    begun = time.monotonic()
    yield
    seconds[step] = time.monotonic() - begun


@contextlib.contextmanager
def _report_lock_change(memory: Path) -> Iterator[None]:
    """Report at the end, also after a failed bake, that a lock has changed."""
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
