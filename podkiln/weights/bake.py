"""Baking weights: each layer is found where it is to be, or streamed there from its sources. No file between.

What the lock knows the digest of is looked for first, there and in other registries, and then nothing is
fetched (podkiln.weights.layer_lookup). A layer is committed only when every file in it has the locked sha256
(podkiln.weights.stream), which makes one digest of one description.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from podkiln.errors import IntegrityError
from podkiln.lock.layers import RememberedLayer
from podkiln.oci import spec
from podkiln.registry.blob_copy import RemoteBlob, SourceRegistryError
from podkiln.registry.cancellation import CancelledError
from podkiln.registry.upload import ignore_progress
from podkiln.util.executor import JOBS, run_all
from podkiln.weights.spool import Spooled
from podkiln.weights.stream import WeightLayerStream

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from concurrent.futures import Executor

    from podkiln.oci.spec import Descriptor, Digest
    from podkiln.plan.weight_layers import WeightLayerSpec
    from podkiln.registry import Progress
    from podkiln.registry.upload import BlobSource
    from podkiln.weights.layer_lookup import SourceRepositories
    from podkiln.weights.sink import LayerDestination
    from podkiln.weights.source import SourceClient
    from podkiln.weights.spool import Spool, SpooledLayer

T = TypeVar("T")
log = logging.getLogger(__name__)

_NICER: Final = 4  # in nice values: a layer gets about 40 % of the time that the one before it gets


@dataclass(frozen=True)
class BakeResult:
    """A weight layer that is where it is to be; `fetched` are the bytes that came from its sources."""

    bundle: WeightLayerSpec
    blob: Descriptor
    how: Literal["existing", "mounted", "copied", "uploaded"]
    fetched: int
    seconds: float


@dataclass(frozen=True)
class BakeOptions:
    """Options of a bake. `known`: content key (recipe) of a bundle -> the remembered layer."""

    known: Mapping[Digest, Digest] = field(default_factory=dict)
    origins: SourceRepositories | None = None
    spool: Spool | None = None
    on_baked: Callable[[BakeResult], None] = lambda _: None


def bake(
    bundles: Sequence[WeightLayerSpec],
    sink: LayerDestination,
    access: SourceClient,
    *,
    known: Mapping[Digest, Digest] | None = None,
    origins: SourceRepositories | None = None,
    spool: Spool | None = None,
    jobs: int = JOBS,
    on_progress: Progress | None = None,
    on_baked: Callable[[BakeResult], None] = lambda _: None,
) -> list[BakeResult]:
    """See that all weight layers are in a sink. The first failure stops all others and is raised.

    Args:
        bundles: What is in each layer.
        sink: Where to.
        access: Access to sources.
        known: What the lock remembers: recipe of a bundle -> digest of its layer.
        origins: Registries to copy layers from that the lock remembers.
        spool: Where layers are written first; None: nowhere.
        jobs: Layers at once.
        on_progress: Progress callback (name, bytes done, bytes in all).
        on_baked: Callback for each finished layer, one at a time; other layers may still fail.

    Raises:
        SourceError: A file could not be fetched.
        IntegrityError: A file is not the one that is locked; nothing of its layer was kept.
        RegistryError: The registry refused.
        UsageError: The disk, of the layout or of the spool, does not hold what it must.
    """
    helpers = BakeOptions(known or {}, origins, spool, on_baked)
    return _BakeRun(sink, access, helpers, on_progress or ignore_progress).bake_all(bundles, jobs)


class _BakeRun:
    """The layers that are being baked at one time, which fail together."""

    def __init__(
        self, sink: LayerDestination, access: SourceClient, helpers: BakeOptions, on_progress: Progress
    ) -> None:
        self._sink = sink
        self._access = access
        self._helpers = helpers
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._streams: set[WeightLayerStream] = set()
        self._stopped = False

    def bake_all(self, bundles: Sequence[WeightLayerSpec], jobs: int) -> list[BakeResult]:
        """Bake several at once; in the order given back, too."""
        turns = itertools.count()
        with ThreadPoolExecutor(
            jobs, "bake", initializer=lambda: _lower_thread_priority(next(turns))
        ) as pool:
            found = self._all(pool, self._find, bundles)
            lacking = [each for each, there in zip(bundles, found, strict=True) if there is None]
            if self._helpers.spool:
                self._helpers.spool.require(lacking, jobs)
            made = iter(self._all(pool, self._bake, lacking))
        return [there or next(made) for there in found]

    def _all(
        self, pool: Executor, work: Callable[[WeightLayerSpec], T], bundles: Sequence[WeightLayerSpec]
    ) -> list[T]:
        return run_all(pool, work, bundles, cancel=self._stop, cancelled=CancelledError)

    def _stop(self) -> None:
        """End what is under way."""
        with self._lock:
            self._stopped = True
            streams = list(self._streams)
        self._sink.cancel()
        if self._helpers.origins:
            self._helpers.origins.cancel()
        for stream in streams:
            stream.abort()

    def _refuse_stopped(self) -> None:
        if self._stopped:
            raise CancelledError("given up")

    def _find(self, bundle: WeightLayerSpec) -> BakeResult | None:
        """Look for a layer that the lock remembers where it is to be."""
        begun = time.monotonic()
        blob = self._remembered(bundle)
        how = self._sink.find(blob) if blob else None
        if blob is None or how is None:
            return None
        if self._helpers.spool:
            self._helpers.spool.discard(bundle)
        self._on_progress(bundle.name, bundle.size, bundle.size)
        return BakeResult(bundle, blob, how, 0, time.monotonic() - begun)

    def _remembered(self, bundle: WeightLayerSpec) -> Descriptor | None:
        digest = self._helpers.known.get(bundle.recipe)
        return spec.Descriptor(spec.LAYER, digest, bundle.size) if digest else None

    def _bake(self, bundle: WeightLayerSpec) -> BakeResult:
        """Have a layer from another registry, or make it; and say so."""
        baked = self._made(bundle)
        with self._telling:
            self._helpers.on_baked(baked)
        return baked

    def _made(self, bundle: WeightLayerSpec) -> BakeResult:
        begun = time.monotonic()
        blob = self._remembered(bundle)
        if blob and self._copy(bundle, blob):
            return BakeResult(bundle, blob, "copied", 0, time.monotonic() - begun)
        digest = blob.digest if blob else None
        blob, fetched = (self._spool if self._helpers.spool else self._stream)(bundle, digest)
        return BakeResult(bundle, blob, "uploaded", fetched, time.monotonic() - begun)

    def _copy(self, bundle: WeightLayerSpec, blob: Descriptor) -> bool:
        """Copy a layer from where an earlier bake put it; False when that cannot be."""
        origins = self._helpers.origins
        holder = origins.holder(blob) if origins else None
        if holder is None:
            return False
        try:
            self._take_copy(bundle, RemoteBlob(holder, blob, bundle.name))
        except SourceRegistryError as failure:
            log.warning("%s is made from its sources again: %s", bundle.name, failure)
            return False
        return True

    def _take_copy(self, bundle: WeightLayerSpec, copy: RemoteBlob) -> None:
        if not self._helpers.spool:
            self._sink.take(copy, self._on_progress)
            return
        with self._helpers.spool.part(bundle) as part:
            part.restart()
            self._send(part, self._write(part, copy), bundle)

    def _stream(self, bundle: WeightLayerSpec, digest: Digest | None) -> tuple[Descriptor, int]:
        """Stream a layer from its sources; return it, and how many bytes those gave."""
        with self._streaming(bundle, self._access, digest) as stream:
            return self._sink.take(stream, self._on_progress), stream.fetched

    def _spool(self, bundle: WeightLayerSpec, digest: Digest | None) -> tuple[Descriptor, int]:
        """Write a layer to the disk, and send it from there."""
        assert self._helpers.spool  # noqa: S101 - asked by the caller
        with self._helpers.spool.part(bundle) as part:
            try:
                blob, fetched = self._fill(part, bundle, digest)
            except IntegrityError:
                kept = part.kept
                part.restart()
                if not kept:
                    part.discard()
                    raise
                # What an earlier bake left may be what is damaged.
                blob, fetched = self._fill(part, bundle, digest)
            self._send(part, blob, bundle)
            return blob, fetched

    def _fill(
        self, part: SpooledLayer, bundle: WeightLayerSpec, digest: Digest | None
    ) -> tuple[Descriptor, int]:
        with self._streaming(bundle, part.access(self._access), digest) as stream:
            return self._write(part, stream), stream.fetched - part.kept_content

    def _write(self, part: SpooledLayer, content: BlobSource) -> Descriptor:
        done = 0
        for chunk in content.chunks():
            self._refuse_stopped()
            part.write(chunk)
            done += len(chunk)
            self._on_progress(f"{content.name} (to disk)", done, content.size)
        if content.blob is None:
            raise CancelledError("given up")
        return content.blob

    def _send(self, part: SpooledLayer, blob: Descriptor, bundle: WeightLayerSpec) -> None:
        self._sink.take(Spooled(bundle.name, part.path, blob), self._on_progress)
        part.discard()

    @contextlib.contextmanager
    def _streaming(
        self, bundle: WeightLayerSpec, access: SourceClient, digest: Digest | None
    ) -> Generator[WeightLayerStream]:
        """Open a stream that `_stop` can abort."""
        with contextlib.closing(WeightLayerStream(bundle, access, digest)) as stream:
            with self._lock:
                self._streams.add(stream)
                self._refuse_stopped()
            try:
                yield stream
            finally:
                with self._lock:
                    self._streams.discard(stream)


def _lower_thread_priority(earlier: int) -> None:
    """Lower this thread's priority by nice +4 for each of `earlier` layers, so that layers finish in order.

    A registry then stores one layer while the next is hashed. Linux has a nice value for each thread, which
    may be raised without privileges (setpriority(2), sched(7)). Threads started later inherit it.
    """
    own = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, own + earlier * _NICER)


def remembered(baked: Iterable[BakeResult]) -> dict[str, RememberedLayer]:
    """Return what the lock remembers of layers, by recipe."""
    return {
        each.bundle.recipe: RememberedLayer(
            name=each.bundle.name, digest=each.blob.digest, size=each.blob.size
        )
        for each in baked
    }
