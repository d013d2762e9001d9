"""`--spool DIR`: a layer is first written to a folder of this machine, then sent from there.

The last resort, where a registry takes no streams or does not go on with an upload that was cut: nothing is
asked of the source twice. A bake that was killed goes on with what it left: those bytes are read and hashed
again, and the source is asked from there on by Range.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass, field
from heapq import nlargest
from typing import TYPE_CHECKING, Final, Self

from podkiln.errors import UsageError
from podkiln.util import console
from podkiln.weights.source import CHUNK, SourceClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from podkiln.oci.spec import Descriptor
    from podkiln.oci.tar_layer import Chunk
    from podkiln.plan.weight_layers import WeightFile, WeightLayerSpec
    from podkiln.weights.source import ByteSource

_SUFFIX: Final = ".layer"


class Spool:
    """A folder for layers under way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def require(self, bundles: Sequence[WeightLayerSpec], jobs: int) -> None:
        """See that the folder can be written to and holds the largest layers at once. Raises UsageError."""
        self._make()
        here = {each.recipe: self._kept(each) for each in bundles}
        most = nlargest(jobs, (each.size - here[each.recipe] for each in bundles))
        needs, has = sum(most), shutil.disk_usage(self._folder).free
        if needs > has:
            raise UsageError(
                f"--spool: {self._folder} needs {console.size(needs)} for the {len(most)} largest layers at "
                f"once, and has {console.size(has)}.",
                hint="Give a folder on a larger disk, or leave --spool out if the registry takes streams.",
            )

    def part(self, bundle: WeightLayerSpec) -> SpooledLayer:
        """Return the file of a layer, with what an earlier bake left of it. Raises UsageError: in use."""
        self._make()
        return SpooledLayer(self._place(bundle), bundle)

    def discard(self, bundle: WeightLayerSpec) -> None:
        """Delete what an earlier bake left of a layer that is not needed any more."""
        self._place(bundle).unlink(missing_ok=True)

    def _make(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as failed:
            raise UsageError(f"--spool: {self._folder} cannot be made: {failed.strerror}.") from None
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise UsageError(f"--spool: {self._folder} cannot be written to.")

    def _kept(self, bundle: WeightLayerSpec) -> int:
        with contextlib.suppress(OSError):
            return self._place(bundle).stat().st_size
        return 0

    def _place(self, bundle: WeightLayerSpec) -> Path:
        return self._folder / (bundle.recipe.partition(":")[2] + _SUFFIX)


class SpooledLayer:
    """The file of one layer, locked by this bake: a context manager. `kept`: bytes of an earlier run."""

    def __init__(self, path: Path, bundle: WeightLayerSpec) -> None:
        self.path = path
        self._bundle = bundle
        self._at = 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as failed:
            raise UsageError(f"--spool: {path} cannot be written: {failed.strerror}.") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise UsageError(
                f"--spool: another bake is using {path.parent}.", hint="Give each its own folder."
            ) from None
        self.kept = min(os.fstat(self._file).st_size, bundle.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    @property
    def kept_content(self) -> int:
        """Bytes of the files themselves that were there before."""
        segments = (segment for segment in self._bundle.layout.segments if segment.entry)
        return sum(min(max(self.kept - segment.start, 0), segment.size) for segment in segments)

    def access(self, access: SourceClient) -> SourceClient:
        """Return access to the sources that begins with what is here."""
        return _ResumedSource(access.hubs, access.policy, self.path, self._starts(), self.kept)

    def write(self, chunk: Chunk) -> None:
        """Take the next bytes of the layer; what is there already is compared, and put right."""
        have = os.pread(self._file, len(chunk), self._at) if self._at < self.kept else b""
        try:
            if not have or have != bytes(chunk):  # views are compared byte by byte, which takes long
                _write_all(self._file, chunk, self._at)
        except OSError as full:
            raise UsageError(f"--spool: {self.path} cannot be written: {full.strerror}.") from None
        self._at += len(chunk)

    def restart(self) -> None:
        """Truncate the file and begin again."""
        os.ftruncate(self._file, 0)
        self.kept = self._at = 0

    def discard(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def _starts(self) -> dict[str, int]:
        segments = self._bundle.layout.segments
        return {segment.entry.path: segment.start for segment in segments if segment.entry}


@dataclass(frozen=True)
class Spooled:
    """A layer on this machine, whole and checked, as `registry.upload.BlobSource`."""

    name: str
    path: Path
    blob: Descriptor

    @property
    def size(self) -> int:
        """Bytes."""
        return self.blob.size

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the layer from an offset on."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(offset)
            while chunk := file.read(CHUNK):
                yield chunk


@dataclass(frozen=True)
class _ResumedSource(SourceClient):
    """Access to sources that gives the first bytes of a layer's files from its part."""

    part: Path | None = None
    starts: dict[str, int] = field(default_factory=dict)
    kept: int = 0

    def open(self, weight: WeightFile, offset: int = 0) -> ByteSource:
        """Begin to read a file: what is here, then what its source has beyond it."""
        assert self.part is not None  # noqa: S101 - set by Part.access
        here = min(self.kept - self.starts[weight.path], weight.size)
        if here <= offset:
            return super().open(weight, offset)
        begin = self.starts[weight.path] + offset
        rest = super().open(weight, here) if here < weight.size else None
        return _ConcatSource(self.part, begin, here - offset, rest)


class _ConcatSource:
    """What is in a part, then the rest from its source."""

    def __init__(self, part: Path, begin: int, count: int, rest: ByteSource | None) -> None:
        self._file = part.open("rb", buffering=0)
        self._file.seek(begin)
        self._left = count
        self._rest = rest

    def readinto(self, buffer: memoryview) -> int:
        count = self._file.readinto(buffer[: self._left]) if self._left else 0
        self._left -= count
        if count or self._rest is None:
            return count
        return self._rest.readinto(buffer)

    def abort(self) -> None:
        if self._rest:
            self._rest.abort()

    def close(self) -> None:
        self._file.close()
        if self._rest:
            self._rest.close()


def _write_all(file: int, chunk: Chunk, offset: int) -> None:
    view = memoryview(chunk)
    while view:
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count
