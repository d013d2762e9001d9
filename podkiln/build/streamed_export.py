"""What BuildKit exports, taken from it as it comes: a disk that is small never holds it as plain tars.

Each variant's image comes as one tar of an OCI layout through a FIFO; its layers are compressed on the way.

Source: OCI image-spec v1.1 image-layout.md; the exporter: docs.docker.com/build/exporters/oci-docker.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tarfile
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from podkiln.build.engine import PLAIN_EXPORT
from podkiln.build.kept_export import destination
from podkiln.canonical_layers.exported import ExportedImage
from podkiln.canonical_layers.packed import PackedLayer
from podkiln.errors import IntegrityError
from podkiln.oci import layout, spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from typing import IO

    from podkiln.oci.layout import Layout
    from podkiln.oci.spec import Digest

_PATIENCE: Final = 0.05  # seconds
_CHUNK: Final = 1 << 20
_BLOBS: Final = "blobs/sha256/"
_NAME: Final = re.compile(rf"oci-layout|index\.json|{_BLOBS}[0-9a-f]{{64}}")
_BLOCK: Final = 512  # bytes of a tar's header
_MAGIC: Final = slice(257, 262)  # POSIX.1-2017 pax, "ustar Interchange Format"; a name may begin as JSON does
_MAX_DOCUMENT: Final = 8 << 20  # bytes of a manifest or config
_EXPORT: Final = PLAIN_EXPORT.replace("tar=false", "tar=true")


@dataclass(frozen=True)
class StreamedExport:
    """A folder of this build alone; `begin` gives it."""

    folder: Path
    _pool: ThreadPoolExecutor
    _reading: dict[str, Future[Layout]] = field(default_factory=dict)
    _claimed: dict[Digest, str] = field(default_factory=dict)
    _packed: dict[Digest, PackedLayer] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    @contextlib.contextmanager
    def begin(cls, parent: Path, names: Sequence[str]) -> Iterator[StreamedExport]:
        """Make the folder, and remove it in the end, whatever happens. Raises OSError."""
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=".export-"))
        try:
            with ThreadPoolExecutor(len(names)) as pool:
                made = cls(folder, pool)
                try:
                    yield made
                finally:
                    made._end()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def prepare(self, names: Sequence[str]) -> None:
        """Begin to wait for what BuildKit writes."""
        for name in names:
            os.mkfifo(self._fifo(name))
            self._reading[name] = self._pool.submit(self._read, name)

    def options(self, names: Sequence[str]) -> list[str]:
        """Return the options of `docker buildx bake` that send targets here, and not where the file says."""
        return [
            word
            for name in names
            for word in ("--set", f"{name}.output=type=oci,{destination(self._fifo(name))},{_EXPORT}")
        ]

    def exported(self, name: str) -> ExportedImage:
        """Return what BuildKit has exported for a variant. Raises IntegrityError, OSError."""
        found = self._reading[name].result()
        # A layer that several variants share is read from the stream of one of them.
        for other in {self._claimed.get(each.digest, name) for each in found.manifest.layers}:
            self._reading[other].result()
        missing = next((each for each in found.manifest.layers if each.digest not in self._packed), None)
        if missing:
            raise IntegrityError(f"BuildKit exported {name} without its layer {spec.short(missing.digest)}.")
        return ExportedImage(found.config, tuple(self._packed[each.digest] for each in found.manifest.layers))

    @property
    def consumed(self) -> bool:
        """Whether a layer goes as it is read: it is, once."""
        return True

    def prune(self) -> None:
        """Keep nothing: the folder goes with the build."""

    def _end(self) -> None:
        """Let those who still wait for BuildKit see that nothing comes any more, and wait for them."""
        left = dict(self._reading)
        while left:
            for name in left:
                with contextlib.suppress(OSError):  # whoever has not yet begun to wait is told the next time
                    os.close(os.open(self._fifo(name), os.O_WRONLY | os.O_NONBLOCK))
            wait(left.values(), timeout=_PATIENCE)
            left = {name: each for name, each in left.items() if not each.done()}

    def _fifo(self, name: str) -> Path:
        return self.folder / f"{name}.fifo"

    def _read(self, name: str) -> Layout:
        """Take one image, its layers apart. Raises IntegrityError, OSError."""
        with self._fifo(name).open("rb") as stream:
            try:
                with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as archive:
                    for member in archive:
                        file = archive.extractfile(member)
                        if file and _NAME.fullmatch(member.name):
                            self._take(member, file, name)
            except tarfile.TarError as wrong:
                raise IntegrityError(f"What BuildKit exported could not be read as a tar: {wrong}.") from None
            except OSError as failed:
                failed.filename = str(self.folder)  # writing names no file
                raise
            finally:
                # BuildKit's client reads the FIFO, too, and so is never told that nobody else does.
                while stream.read(_CHUNK):
                    pass
        return layout.read_documents(self.folder / name)

    def _take(self, member: tarfile.TarInfo, file: IO[bytes], name: str) -> None:
        """Take one file of a variant's layout: a document, or a layer unless another one brings it."""
        place = self.folder / name
        head = file.read(_BLOCK)
        if head.startswith(b"{") and head[_MAGIC] != b"ustar" and member.size <= _MAX_DOCUMENT:
            (place / member.name).parent.mkdir(parents=True, exist_ok=True)
            (place / member.name).write_bytes(head + file.read())
            return
        digest = spec.parse_digest(f"sha256:{member.name.removeprefix(_BLOBS)}")
        with self._lock:
            if digest in self._claimed:
                return
            self._claimed[digest] = name
        made = PackedLayer.pack(_pieces(head, file), self.folder / digest.partition(":")[2])
        if made.diff_id != digest:
            raise IntegrityError(f"BuildKit exported {spec.short(digest)} with the content of another layer.")
        self._packed[digest] = made


def _pieces(head: bytes, file: IO[bytes]) -> Iterator[bytes]:
    yield head
    while piece := file.read(_CHUNK):
        yield piece
