"""Where models lie: what is already there and right, and how a new one gets its name.

Beside each folder's files there is a `.podkiln` folder with the parts, the leases, and a record for each file
we have checked: a file is hashed once, not at each start. Records lie on the volume, with the files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING, Any

from pod.downloads import part_journal
from pod.downloads.staging import Staging, StagingPlan
from pod.net.http import RefusedError
from pod.net.integrity import check_contents, digest, of_file
from pod.util import bounded_json, untrusted_files
from pod.util.dataclass import dataclass, field
from pod.util.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pod.model_refs.models_json import ModelFile
    from pod.net.integrity import Block

    Seen = Callable[[int, int], None]

_LARGEST_RECORD = 64 << 10  # bytes


@dataclass(frozen=True)
class ModelStore:
    """The roots: `baked` came with the image, `target` is ours to write, `volume` is where serverless has it.

    `others` are models folders of an older layout on the volume, which ComfyUI reads too.
    `cache` is RunPod's cached-model folder, in the layout of the Hugging Face cache. `say` takes sentences.
    `area` is where files grow before they come to `target`, if anywhere.
    """

    baked: Path
    target: Path
    volume: Path
    cache: Path
    say: Callable[[str], None]
    area: Staging = field(default_factory=Staging)
    others: tuple[Path, ...] = ()

    def place(self, file: ModelFile) -> Path:
        """Return where a file belongs."""
        return self.target / file.folder / file.name

    def staging(self, file: ModelFile, suffix: str) -> Path:
        """Return a path of ours beside it: on its file system even when the folder is a link to another."""
        place = self.place(file)
        return place.parent / ".podkiln" / f"{place.name}{suffix}"

    def anywhere(self, file: ModelFile, size: int | None) -> Path | None:
        """Return where a file of this name (and size, if given) lies, unchecked."""
        paths = (self.baked / file.folder / file.name, *self._ours_and_theirs(file))
        return next((path for path in paths if _is_file(path) and size in {None, path.stat().st_size}), None)

    def holds(self, file: ModelFile) -> bool:
        """Tell whether there is a file of this name, or a cached one, right or wrong."""
        return self.anywhere(file, None) is not None or bool(self._cached(file))

    def known(self, file: ModelFile, expected: str, size: int | None) -> Path | None:
        """Return where the right file lies, as far as that takes no hashing and changes nothing."""
        for path in self._ours_and_theirs(file):  # before the image's, as ComfyUI looks
            if _is_file(path) and _recorded(path) == _record(path, expected):
                return path
        baked = self.baked / file.folder / file.name
        if _is_file(baked) and size in {None, baked.stat().st_size}:
            return baked  # the image's own digest vouches for the bytes
        return None

    def examine(
        self,
        file: ModelFile,
        expected: str,
        size: int | None,
        *,
        again: bool = False,
        seen: Seen = lambda _done, _total: None,
    ) -> Path | None:
        """Return where the right file lies, hashing what has no record yet, or None when it must be fetched.

        With `again`, everything is hashed, the baked file too; `seen` is told how far that is, in bytes.
        What is wrong below `target` is moved aside; so only the owner of the file's lease may ask.
        Raises OSError.
        """
        if (place := self.place(file)).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
        for path in self._ours_and_theirs(file):
            if _is_file(path) and self._is_right(path, expected, size, seen, again=again):
                return path
            if path.is_relative_to(self.target) and path.is_symlink() and not path.exists():
                path.unlink()  # led to a cached model that is gone
        baked = self.baked / file.folder / file.name
        if _is_file(baked) and (reason := self._wrong(baked, expected, size, seen, again=again)):
            self.say(f"{baked} {reason}: fetched again, beside the image")
        elif _is_file(baked):
            return baked
        return self._link_cached(file, expected, size, seen)

    def publish(self, file: ModelFile, growth: StagingPlan, expected: str) -> Path:
        """Give a complete, checked and flushed file its name: the one gate through which all files come.

        What is refused here is removed. Raises OSError, RefusedError.
        """
        grown = growth.copy or growth.part
        place = self.place(file)
        try:
            check_contents(grown, place.name, vouched=file.vouched)
        except RefusedError:
            for each in (growth.part, growth.copy):
                if each:
                    part_journal.remove(each)
            raise
        grown.replace(place)
        for each in (growth.part, growth.copy):
            if each:
                part_journal.remove(each)
        _flush(place.parent)
        self._remember(place, expected)
        return place

    def _wrong(self, baked: Path, expected: str, size: int | None, seen: Seen, *, again: bool) -> str | None:
        actual = baked.stat().st_size
        if size not in {None, actual}:
            return f"has {actual} bytes, not {size}"
        found = digest(_watched(baked, seen), actual, expected) if again else expected
        return None if found == expected else f"has {found}, not {expected}"

    def _ours_and_theirs(self, file: ModelFile) -> list[Path]:
        roots = dict.fromkeys((self.target, self.volume, *self.others))
        return [root / file.folder / file.name for root in roots]

    def _is_right(self, path: Path, expected: str, size: int | None, seen: Seen, *, again: bool) -> bool:
        actual = path.stat().st_size
        if size not in {None, actual}:
            self._reject(path, f"has {actual} bytes, not {size}")
            return False
        record = None if again else _recorded(path)
        if (
            record is None
            or record != _record(path, record["digest"])
            or not _alike(record["digest"], expected)
        ):
            self.say(f"{path} is there; its hash is checked{' again' if again else ' once'}")
            record = self._remember(path, digest(_watched(path, seen), actual, expected))
        if record["digest"] != expected:
            self._reject(path, f"has {record['digest']}, not {expected}")
        return bool(record["digest"] == expected)

    def _reject(self, path: Path, reason: str) -> None:
        if not path.is_relative_to(self.target):
            self.say(f"{path} {reason}: it is left alone, and fetched to {self.target}")
            return
        aside = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        try:
            path.rename(aside)
        except OSError as error:
            raise RefusedError(
                f"is wrong: {path} {reason}; and it cannot be moved aside "
                f"({(error.strerror or '').lower()}): mount the volume writable, then fetch again"
            ) from None
        self.say(f"{path} {reason}: moved aside to {aside.name}, which may be deleted, and fetched again")

    def _link_cached(self, file: ModelFile, expected: str, size: int | None, seen: Seen) -> Path | None:
        """Link a file of RunPod's cached model into place when it is the right one."""
        for path in self._cached(file):
            if size not in {None, path.stat().st_size}:
                continue
            if digest(_watched(path, seen), path.stat().st_size, expected) == expected:
                place = self.place(file)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(path)
                self._remember(place, expected)
                return place
        return None

    def _cached(self, file: ModelFile) -> list[Path]:
        source = file.source
        if source.get("kind") != "huggingface":
            return []
        snapshots = self.cache / f"models--{source['repo'].replace('/', '--')}" / "snapshots"
        try:
            commits = sorted(snapshots.iterdir())
        except OSError:
            commits = []
        return [path for commit in commits if _is_file(path := commit / source["path"])]

    def _remember(self, path: Path, found: str) -> dict[str, Any]:
        """Record what was found, for the next start; a volume that cannot be written costs another hash."""
        record = _record(path, found)
        with contextlib.suppress(OSError):
            write_json(_record_path(path), record)
        return record


def _watched(path: Path, seen: Seen) -> Iterator[Block]:
    done, total = 0, path.stat().st_size
    for block in of_file(path):
        yield block
        done += len(block)
        seen(done, total)


def _record(path: Path, found: str) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "digest": found}


def _record_path(path: Path) -> Path:
    return path.parent / ".podkiln" / f"{path.name}.verified.json"


def _alike(found: str, expected: str) -> bool:
    """Tell whether two digests are of one kind: a sha256 and a git object id say nothing of each other."""
    return found.partition(":")[0] == expected.partition(":")[0]


def _is_file(path: Path) -> bool:
    """Whether a file is there: no for a folder that may not be read or fails, where Path.is_file raises."""
    return os.path.isfile(path)  # noqa: PTH113


def _recorded(path: Path) -> dict[str, Any] | None:
    try:
        record = bounded_json.parse(untrusted_files.read_plain(_record_path(path), _LARGEST_RECORD))
        known = record.keys() == {"size", "mtime_ns", "digest"} and isinstance(record["digest"], str)
    except (OSError, ValueError, AttributeError):
        return None
    return record if known else None


def _flush(folder: Path) -> None:
    """Make a rename last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems cannot, and lose nothing by it
    finally:
        os.close(descriptor)
