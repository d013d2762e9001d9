"""The folder that BuildKit exports into, kept between builds: it writes only layers that are not there yet.

In the folder of a builder: `blobs/`, which all variants share, and `images/VARIANT` with its index.json.
One build at a time holds it.

Source: OCI image-spec v1.1 image-layout.md; the exporter: docs.docker.com/build/exporters/oci-docker.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from podkiln.build.engine import PLAIN_EXPORT
from podkiln.canonical_layers.exported import DamagedExportError, ExportedImage
from podkiln.errors import IntegrityError
from podkiln.oci import layout
from podkiln.util import lock_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)
# The engine hands a layer from process to process in small pieces, twice: to compress it takes less time than
# that takes for the half of the bytes. Level 1, since it is read here and sent to nobody: a first build is a
# fifth faster in this than at the level that BuildKit chooses.
_EXPORT: Final = PLAIN_EXPORT.replace("=uncompressed", "=zstd,compression-level=1")
MAX_VARIANTS: Final = 8  # whose layers are kept; those of the one built longest ago are removed first


@dataclass(frozen=True)
class KeptExport:
    """The folder of one builder; `hold` gives it."""

    folder: Path

    @classmethod
    @contextlib.contextmanager
    def hold(cls, root: Path, builder: str | None) -> Iterator[KeptExport]:
        """Hold the folder of a builder; another build that uses it is waited for. Raises UsageError."""
        kept = cls(root / re.sub(r"[^A-Za-z0-9._-]", "_", builder or "default"))
        with lock_file.open_in(kept.folder, f"The cache folder {kept.folder}") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waiting for another build with this builder, which holds %s", kept.folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            (kept.folder / "blobs").mkdir(exist_ok=True)
            kept._tidy()
            try:
                yield kept
            finally:
                kept._tidy()

    def options(self, names: Sequence[str]) -> list[str]:
        """Return the options of `docker buildx bake` that send targets here, and not where the file says."""
        return [
            word
            for name in names
            for word in ("--set", f"{name}.output=type=oci,{destination(self._place(name))},{_EXPORT}")
        ]

    def prepare(self, names: Sequence[str]) -> None:
        """Make the folders that BuildKit exports to, without what an earlier build said of them."""
        for name in names:
            place = self._place(name)
            place.mkdir(parents=True, exist_ok=True)
            for left in ("index.json", "index.json.lock"):
                (place / left).unlink(missing_ok=True)
            if not (place / "blobs").is_symlink():
                (place / "blobs").symlink_to("../../blobs")

    @property
    def consumed(self) -> bool:
        """Whether a layer goes as it is read."""
        return False

    def exported(self, name: str) -> ExportedImage:
        """Return what BuildKit has exported for a variant.

        Raises DamagedExportError: it was damaged, and all that is kept was thrown away with it, since
        BuildKit takes what is there for what it would write. Raises IntegrityError for one of another kind.
        """
        try:
            found = layout.read(self._place(name))
        except IntegrityError as damaged:
            self._throw_away()
            hint = f"Build again. If that does not help, delete {self.folder}, where exports are kept."
            raise DamagedExportError(
                f"The kept export of the build was damaged: {damaged}", hint=hint
            ) from None
        return ExportedImage.of(found)

    def _throw_away(self) -> None:
        for path in (self.folder / "blobs", self.folder / "images"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        (self.folder / "blobs").mkdir(exist_ok=True)

    def prune(self) -> None:
        """Remove the layers that the latest builds of the last few variants do not have."""
        indexes = sorted(self.folder.glob("images/*/index.json"), key=lambda path: -path.stat().st_mtime)
        for index in indexes[MAX_VARIANTS:]:
            shutil.rmtree(index.parent, ignore_errors=True)
        used: set[str] = set()
        for index in indexes[:MAX_VARIANTS]:
            used |= self._used(index)
        for blob in (self.folder / "blobs").glob("*/*"):
            if blob.name not in used:
                blob.unlink(missing_ok=True)

    def _used(self, index: Path) -> set[str]:
        """Return the hex digits of all that an index leads to; of what cannot be read, none."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(index.read_text())
            manifests = [each["digest"].partition(":")[2] for each in told["manifests"]]
            found = set(manifests)
            for digits in manifests:
                manifest = json.loads((self.folder / "blobs" / "sha256" / digits).read_text())
                blobs = [manifest["config"], *manifest["layers"]]
                found |= {each["digest"].partition(":")[2] for each in blobs}
            return found
        return set()

    def _tidy(self) -> None:
        """Remove what an export has left that did not end."""
        for left in self.folder.glob("images/*/ingest"):
            shutil.rmtree(left, ignore_errors=True)

    def _place(self, name: str) -> Path:
        return self.folder / "images" / name


def destination(path: Path) -> str:
    """Return where an export goes, as BuildKit reads it: a field of a line of CSV."""
    return '"dest={}"'.format(str(path).replace('"', '""'))
