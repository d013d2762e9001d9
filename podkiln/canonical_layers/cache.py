"""Written layers, remembered by what they were written from: a build that changes one writes one.

In the folder: `blobs/HEX`, the compressed layers by digest; `checked/HEX`, when each was hashed;
`written/KEY.json`, what a layer came to; and `entries/KEY`, what an exported layer holds. The key of a
written layer covers the rules and all exported layers up to that one: what lies below decides what changes
nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import zstandard

from podkiln.canonical_layers import entry_list, writer
from podkiln.canonical_layers.checks import Checks
from podkiln.canonical_layers.writer import WrittenLayer
from podkiln.errors import IntegrityError
from podkiln.oci import spec
from podkiln.util import atomic, seal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from podkiln.canonical_layers.checks import Told
    from podkiln.canonical_layers.entries import Entry
    from podkiln.oci.spec import Digest

log = logging.getLogger(__name__)
MAX_BYTES: Final = 24 << 30  # of compressed layers: five variants and their last few changes
MAX_LISTS: Final = 400  # of entries; each has at most a few MB
_UNREADABLE: Final = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
_WRITTEN_AT: Final = 1  # seconds: the time that every layer here has; another one shows that it was changed
_LEFT_OVER: Final = 24 * 3600  # seconds after which a file of a killed build is removed


@dataclass(frozen=True)
class LayerCache:
    """The folder that holds them."""

    folder: Path

    def blob(self, digest: Digest) -> Path:
        """Return where a layer lies, or would."""
        return self.folder / "blobs" / digest.partition(":")[2]

    def find(self, key: str, told: Told = lambda *_: None) -> WrittenLayer | None:
        """Return what a layer came to, where that is known and lies here whole.

        It is read unless it was since the machine has started, and today: `told` hears how far.
        """
        try:
            known = json.loads(_content(self._record(key)))
            if known.pop("seal") != seal.of(key, known):
                return None
            found = WrittenLayer(**known)
            if not self._is_whole(found.digest, found.size, told=told):
                return None
            os.utime(self._record(key))  # what was used longest ago is pruned first
        except _UNREADABLE:
            return None
        return found

    def _is_whole(
        self, digest: Digest, size: int, *, again: bool = False, told: Told = lambda *_: None
    ) -> bool:
        """Tell whether a layer lies here as it was written; one that does not goes. Raises OSError."""
        place = self.blob(digest)
        there = place.lstat()
        untouched = stat.S_ISREG(there.st_mode) and (there.st_size, there.st_mtime) == (size, _WRITTEN_AT)
        if untouched and self._checks.holds(place, again=again, told=told):
            return True
        log.warning("The kept layer %s is not what was written there; it is made again.", spec.short(digest))
        place.unlink(missing_ok=True)
        return False

    @property
    def _checks(self) -> Checks:
        return Checks(self.folder / "checked")

    def doubt(self) -> None:
        """Have each layer read again before it is used. Raises OSError."""
        self._checks.forget()

    def entries(self, diff_id: Digest, epoch: int) -> list[Entry] | None:
        """Return what an exported layer holds, where that is remembered."""
        place = self._entries(diff_id, epoch)
        try:
            found = entry_list.load(_content(place), place.name)
            os.utime(place)
        except (OSError, ValueError):
            return None
        return found

    def remember_entries(self, diff_id: Digest, epoch: int, entries: list[Entry]) -> None:
        """Remember what an exported layer holds. Raises OSError."""
        place = self._entries(diff_id, epoch)
        atomic.write(place, entry_list.dump(entries, place.name))

    def add(self, blob: spec.Descriptor, pieces: Iterable[bytes]) -> Path:
        """Return where a layer lies that others have written; it is read and kept unless it is here.

        `pieces` are checked by who reads them. Raises OSError, and what they raise.
        """
        place = self.blob(blob.digest)
        with contextlib.suppress(OSError):
            if self._is_whole(blob.digest, blob.size, again=True):  # these are small
                return place
        with self._aside() as aside:
            with aside.open("wb") as file:
                file.writelines(pieces)
            self._keep(aside, blob.digest)
        return place

    def write(self, key: str, entries: Iterable[Entry], tar: BinaryIO) -> WrittenLayer:
        """Write a layer and remember it. Raises IntegrityError, OSError."""
        with self._aside() as aside:
            made = writer.write(entries, tar, aside)
            self._keep(aside, made.digest)
        told = asdict(made)
        atomic.write_json(self._record(key), {**told, "seal": seal.of(key, told)})
        return made

    def keep_only(self, digests: Collection[Digest]) -> None:
        """Remove all layers but these."""
        for path in (self.folder / "blobs").glob("*"):
            if f"sha256:{path.name}" not in digests and (path.is_symlink() or not path.is_dir()):
                path.unlink(missing_ok=True)
        self._checks.prune(self.folder / "blobs")

    @contextlib.contextmanager
    def _aside(self) -> Iterator[Path]:
        """Give a file to write a layer to, which goes unless it is kept."""
        (self.folder / "blobs").mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.folder / "blobs", prefix=".")
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _keep(self, aside: Path, digest: Digest) -> None:
        aside.chmod(0o644)
        os.utime(aside, (_WRITTEN_AT, _WRITTEN_AT))
        aside.replace(self.blob(digest))
        self._checks.remember(self.blob(digest))

    def prune(self, most: int = MAX_BYTES) -> None:
        """Remove what was used longest ago, until no more than `most` bytes are left."""
        used: dict[str, tuple[float, list[Path]]] = {}
        for record in self.folder.glob("written/*.json"):
            with contextlib.suppress(*_UNREADABLE, IntegrityError):
                name = spec.parse_digest(json.loads(_content(record))["digest"]).partition(":")[2]
                last, records = used.get(name, (0.0, []))
                used[name] = (max(last, record.stat().st_mtime), [*records, record])
        left = 0
        for name, (_, records) in sorted(used.items(), key=lambda each: -each[1][0]):
            blob = self.folder / "blobs" / name
            with contextlib.suppress(OSError):
                left += blob.stat().st_size
            if left > most:
                for path in (blob, *records):
                    path.unlink(missing_ok=True)
        old = [*self.folder.glob("blobs/.*"), *self.folder.glob("entries/.*")]
        lists = sorted(self.folder.glob("entries/[!.]*"), key=lambda path: -_used_at(path))
        for path in [*filter(_is_left_over, old), *lists[MAX_LISTS:]]:
            with contextlib.suppress(IsADirectoryError):
                path.unlink(missing_ok=True)
        self._checks.prune(self.folder / "blobs")

    def _entries(self, diff_id: Digest, epoch: int) -> Path:
        return self.folder / "entries" / hashlib.sha256(_rules(epoch) + diff_id.encode()).hexdigest()

    def _record(self, key: str) -> Path:
        return self.folder / "written" / f"{key}.json"


def keys(diff_ids: Sequence[Digest], epoch: int) -> list[str]:
    """Return the key of each exported layer, lowest first."""
    found = []
    so_far = hashlib.sha256(_rules(epoch))
    for each in diff_ids:
        so_far.update(each.encode())
        found.append(so_far.hexdigest())
    return found


def _rules(epoch: int) -> bytes:
    """Return all that decides what a layer comes to, but for what was exported."""
    return json.dumps([writer.VERSION, writer.LEVEL, zstandard.__version__, epoch]).encode()


def _content(path: Path) -> bytes:
    """Return what stands in a file. Raises OSError, ValueError where a FIFO, say, would be waited for."""
    if not path.is_file():
        raise ValueError("it is no file")
    return path.read_bytes()


def _used_at(path: Path) -> float:
    """Return when a file was used last; one that is gone meanwhile, or leads nowhere, first of all."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_left_over(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_ctime > _LEFT_OVER
    except OSError:
        return False
