"""Where weight layers go: a repository of a registry, or an OCI layout on disk."""

from __future__ import annotations

import contextlib
import shutil
import threading
import uuid
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from podkiln.errors import UsageError
from podkiln.registry.cancellation import CancelledError
from podkiln.registry.upload import Upload
from podkiln.util import disk_space

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from podkiln.oci.spec import Descriptor, Digest
    from podkiln.registry import Progress, Repository
    from podkiln.registry.upload import BlobSource

Found: TypeAlias = Literal["existing", "mounted"]


class LayerDestination(Protocol):
    """Where layers go."""

    def find(self, blob: Descriptor) -> Found | None:
        """Tell whether a layer is there, mounting it from a known repository where that works."""

    def take(self, content: BlobSource, on_progress: Progress) -> Descriptor:
        """Take a layer: all of it, or nothing when its content raises."""

    def cancel(self) -> None:
        """Let every `take` that is under way end soon, with CancelledError."""


class RegistrySink:
    """A repository of a registry.

    Args:
        repository: Which one.
        mount_from: Others there that may hold some of the layers: all the same ones, or those for a digest.
    """

    def __init__(
        self, repository: Repository, mount_from: Sequence[str] | Callable[[Digest], Sequence[str]] = ()
    ) -> None:
        self._repository = repository
        self._mount_from = mount_from if callable(mount_from) else lambda _: mount_from

    def find(self, blob: Descriptor) -> Found | None:
        """Ask for a layer, and have it mounted if another repository holds it."""
        if self._repository.blob_exists(blob):
            return "existing"
        others = [name for name in self._mount_from(blob.digest) if name != self._repository.name]
        return "mounted" if any(self._repository.mount(blob, other) for other in others) else None

    def take(self, content: BlobSource, on_progress: Progress) -> Descriptor:
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

    def take(self, content: BlobSource, on_progress: Progress) -> Descriptor:
        """Write a layer."""
        aside, before = self._ingest / uuid.uuid4().hex, disk_space.free(self._blobs)
        try:
            self._ingest.mkdir(parents=True, exist_ok=True)
            self._blobs.mkdir(parents=True, exist_ok=True)
            self._write(aside, content, on_progress)
            if content.blob is None:
                raise CancelledError("given up")
            aside.rename(self._place(content.blob))
        except OSError as full:
            if full.errno in disk_space.FULL:
                raise disk_space.error(self._blobs, content.size, before) from None
            raise UsageError(f"{content.name} cannot be written to {self._blobs}: {full.strerror}.") from None
        finally:
            aside.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: others are writing
                self._ingest.rmdir()
        return content.blob

    def cancel(self) -> None:
        """Stop writing."""
        self._cancelled.set()

    def _write(self, aside: Path, content: BlobSource, on_progress: Progress) -> None:
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
