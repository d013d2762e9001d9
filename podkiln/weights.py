"""Baking weights: each layer is found where it is to be, or streamed there from its sources. No file between.

What the lock knows the digest of is looked for first, and then nothing is fetched. A layer is committed only
when every file in it has the locked sha256 (podkiln.stream), which makes one digest of one description.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
import uuid
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from podkiln import oci
from podkiln.errors import UsageError
from podkiln.registry.transport import CancelledError
from podkiln.registry.upload import Upload
from podkiln.stream import WeightStream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from podkiln.bundle import Bundle
    from podkiln.oci import Descriptor, Digest
    from podkiln.registry import Progress, Repository
    from podkiln.registry.upload import Content
    from podkiln.sources import Access

JOBS: Final = 3
"""Layers at once: what registries and hosts use for their own transfers too."""

Found: TypeAlias = Literal["existing", "mounted"]


@dataclass(frozen=True)
class Baked:
    """A weight layer that is where it is to be; `fetched` are the bytes that came from its sources."""

    bundle: Bundle
    blob: Descriptor
    how: Literal["existing", "mounted", "uploaded"]
    fetched: int
    seconds: float


class Sink(Protocol):
    """Where layers go."""

    def find(self, blob: Descriptor) -> Found | None:
        """Tell whether a layer is there, or could be had from nearby."""

    def take(self, content: Content, on_progress: Progress) -> Descriptor:
        """Take a layer: all of it, or nothing when its content raises."""

    def cancel(self) -> None:
        """Let every `take` that is under way end soon, with CancelledError."""


class RegistrySink:
    """A repository of a registry. `mount_from`: others there that may hold some of the layers."""

    def __init__(self, repository: Repository, mount_from: Sequence[str] = ()) -> None:
        self._repository = repository
        self._mount_from = [name for name in mount_from if name != repository.name]

    def find(self, blob: Descriptor) -> Found | None:
        """Ask for a layer, and have it mounted if another repository holds it."""
        if self._repository.has_blob(blob):
            return "existing"
        return "mounted" if any(self._repository.mount(blob, other) for other in self._mount_from) else None

    def take(self, content: Content, on_progress: Progress) -> Descriptor:
        """Upload a layer; what fails is deleted there."""
        return Upload(self._repository, content, on_progress).run()

    def cancel(self) -> None:
        """Stop all that speaks to this registry."""
        self._repository.transport.cancel()


class LayoutSink:
    """An OCI layout on disk. Layers are written aside, in `ingest`, and take their place by rename."""

    def __init__(self, layout: Path) -> None:
        self._blobs = layout / "blobs" / "sha256"
        self._ingest = layout / "ingest"
        self._cancelled = threading.Event()
        shutil.rmtree(self._ingest, ignore_errors=True)  # what a run that was killed has left

    def find(self, blob: Descriptor) -> Found | None:
        """Look for a layer; what has its name and size was checked when it was written."""
        with contextlib.suppress(FileNotFoundError):
            if self._place(blob).stat().st_size == blob.size:
                return "existing"
        return None

    def take(self, content: Content, on_progress: Progress) -> Descriptor:
        """Write a layer."""
        aside = self._ingest / uuid.uuid4().hex
        try:
            self._ingest.mkdir(parents=True, exist_ok=True)
            self._blobs.mkdir(parents=True, exist_ok=True)
            self._write(aside, content, on_progress)
            if content.blob is None:
                raise CancelledError("given up")
            aside.rename(self._place(content.blob))
        except OSError as full:
            raise UsageError(f"{content.name} cannot be written to {self._blobs}: {full.strerror}.") from None
        finally:
            aside.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: others are writing
                self._ingest.rmdir()
        return content.blob

    def cancel(self) -> None:
        """Stop writing."""
        self._cancelled.set()

    def _write(self, aside: Path, content: Content, on_progress: Progress) -> None:
        done = 0
        with aside.open("xb", buffering=0) as file:
            for chunk in content.chunks():
                if self._cancelled.is_set():
                    raise CancelledError("given up")
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
                done += len(chunk)
                on_progress(content.name, done, content.size)

    def _place(self, blob: Descriptor) -> Path:
        return self._blobs / blob.digest.partition(":")[2]


def bake(
    bundles: Sequence[Bundle],
    sink: Sink,
    access: Access,
    *,
    known: Mapping[Digest, Digest] | None = None,
    jobs: int = JOBS,
    on_progress: Progress | None = None,
) -> list[Baked]:
    """See that all weight layers are in a sink. The first failure stops all others and is raised.

    Args:
        bundles: What is in each layer.
        sink: Where to.
        access: How sources are spoken to.
        known: What the lock remembers: recipe of a bundle -> digest of its layer.
        jobs: Layers at once.
        on_progress: Told as bytes are moved.

    Raises:
        SourceError: A file could not be had.
        IntegrityError: A file is not the one that is locked; nothing of its layer was kept.
        RegistryError: The registry refused.
    """
    return _Oven(sink, access, known or {}, on_progress or _silent).bake_all(bundles, jobs)


class _Oven:
    """The layers that are being baked at one time, which fail together."""

    def __init__(
        self, sink: Sink, access: Access, known: Mapping[Digest, Digest], on_progress: Progress
    ) -> None:
        self._sink = sink
        self._access = access
        self._known = known
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._streams: set[WeightStream] = set()
        self._failure: BaseException | None = None

    def bake_all(self, bundles: Sequence[Bundle], jobs: int) -> list[Baked]:
        """Bake several at once; in the order given back, too."""
        with ThreadPoolExecutor(jobs, thread_name_prefix="bake") as pool:
            futures = [pool.submit(self._bake_or_stop, bundle) for bundle in bundles]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            except BaseException as interrupted:
                self._stop(interrupted)
                raise
            finally:
                pool.shutdown(cancel_futures=self._failure is not None)
        if self._failure:
            raise self._failure
        return [future.result() for future in futures]

    def _bake_or_stop(self, bundle: Bundle) -> Baked:
        try:
            return self._bake(bundle)
        except BaseException as failure:
            self._stop(failure)
            raise

    def _stop(self, failure: BaseException) -> None:
        """Remember the first failure, and end what else is under way."""
        with self._lock:
            self._failure = self._failure or failure
            streams = list(self._streams)
        self._sink.cancel()
        for stream in streams:
            stream.abort()

    def _bake(self, bundle: Bundle) -> Baked:
        begun = time.monotonic()
        digest = self._known.get(bundle.recipe)
        if digest:
            blob = oci.Descriptor(oci.LAYER, digest, bundle.size)
            if how := self._sink.find(blob):
                self._on_progress(bundle.name, bundle.size, bundle.size)
                return Baked(bundle, blob, how, 0, time.monotonic() - begun)
        with contextlib.closing(WeightStream(bundle, self._access, digest)) as stream:
            with self._lock:
                self._streams.add(stream)
                if self._failure:
                    raise CancelledError("given up")
            try:
                blob = self._sink.take(stream, self._on_progress)
            finally:
                with self._lock:
                    self._streams.discard(stream)
            return Baked(bundle, blob, "uploaded", stream.fetched, time.monotonic() - begun)


def _silent(_what: str, _done: int, _total: int) -> None:
    """Report to nobody."""
