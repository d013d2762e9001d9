"""Where models lie: what is already there and right, where a file grows, and how it gets its name.

Beside each folder's files there is a `.podkiln` folder with the parts, the claims, and a record for each file
we have checked: a file is hashed once, not at each start. Records lie on the volume, with the files.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pod import part
from pod.contents import check_safetensors, digest, of_file
from pod.progress import write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pod.listing import File


@dataclass(frozen=True)
class Store:
    """The roots: `baked` came with the image, `target` is ours to write, `volume` is where serverless has it.

    `cache` is RunPod's cached-model folder, in the layout of the Hugging Face cache. `say` takes sentences.
    """

    baked: Path
    target: Path
    volume: Path
    cache: Path
    say: Callable[[str], None]

    def place(self, file: File) -> Path:
        """Return where a file belongs."""
        return self.target / file.folder / file.name

    def staging(self, file: File, suffix: str) -> Path:
        """Return a path of ours beside it: on its file system even when the folder is a link to another."""
        place = self.place(file)
        return place.parent / ".podkiln" / f"{place.name}{suffix}"

    def anywhere(self, file: File, size: int | None) -> Path | None:
        """Return where a file of this name (and size, if given) lies, unchecked."""
        paths = (root / file.folder / file.name for root in (self.baked, self.target, self.volume))
        return next((path for path in paths if path.is_file() and size in {None, path.stat().st_size}), None)

    def known(self, file: File, expected: str, size: int | None) -> Path | None:
        """Return where the right file lies, as far as that takes no hashing and changes nothing."""
        baked = self.baked / file.folder / file.name
        if baked.is_file() and size in {None, baked.stat().st_size}:
            return baked  # the image's own digest vouches for the bytes
        for path in self._ours_and_theirs(file):
            if path.is_file() and _recorded(path) == _record(path, expected):
                return path
        return None

    def examine(self, file: File, expected: str, size: int | None) -> Path | None:
        """Return where the right file lies, hashing what has no record yet, or None when it must be fetched.

        What is wrong below `target` is moved aside; so only the owner of the file's claim may ask.
        Raises OSError.
        """
        baked = self.baked / file.folder / file.name
        if baked.is_file():  # and not `known`
            self.say(f"{baked} has {baked.stat().st_size} bytes, not {size}: fetched again, beside the image")
        for path in self._ours_and_theirs(file):
            if path.is_file() and self._is_right(path, expected, size):
                return path
            if path.is_symlink() and not path.exists():
                path.unlink()  # led to a cached model that is gone
        return self._link_cached(file, expected, size)

    def publish(self, file: File, grown: Path, expected: str) -> Path:
        """Give a complete, checked file its name. Raises OSError, RefusedError."""
        check_safetensors(grown, file.name)
        place = self.place(file)
        grown.replace(place)
        part.remove(grown)
        _flush(place.parent)
        self._remember(place, expected)
        return place

    def _ours_and_theirs(self, file: File) -> list[Path]:
        return [root / file.folder / file.name for root in dict.fromkeys((self.target, self.volume))]

    def _is_right(self, path: Path, expected: str, size: int | None) -> bool:
        actual = path.stat().st_size
        if size not in {None, actual}:
            self._reject(path, f"has {actual} bytes, not {size}")
            return False
        record = _recorded(path)
        if record is None or record != _record(path, record["digest"]):
            self.say(f"{path} is there; its hash is checked once")
            record = self._remember(path, digest(of_file(path), actual, expected))
        if record["digest"] != expected:
            self._reject(path, f"has {record['digest']}, not {expected}")
        return bool(record["digest"] == expected)

    def _reject(self, path: Path, reason: str) -> None:
        if not path.is_relative_to(self.target):
            self.say(f"{path} {reason}: it is left alone, and fetched to {self.target}")
            return
        aside = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        path.rename(aside)
        self.say(f"{path} {reason}: moved aside to {aside.name}, which may be deleted, and fetched again")

    def _link_cached(self, file: File, expected: str, size: int | None) -> Path | None:
        """Link a file of RunPod's cached model into place when it is the right one."""
        source = file.source
        if source.get("kind") != "huggingface":
            return None
        snapshots = self.cache / f"models--{source['repo'].replace('/', '--')}" / "snapshots"
        commits = sorted(snapshots.iterdir()) if snapshots.is_dir() else []
        for path in (commit / source["path"] for commit in commits):
            if not path.is_file() or size not in {None, path.stat().st_size}:
                continue
            if digest(of_file(path), path.stat().st_size, expected) == expected:
                place = self.place(file)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(path)
                self._remember(place, expected)
                return place
        return None

    def _remember(self, path: Path, found: str) -> dict[str, Any]:
        """Record what was found, for the next start; a volume that cannot be written costs another hash."""
        record = _record(path, found)
        with contextlib.suppress(OSError):
            write_json(_record_path(path), record)
        return record


def _record(path: Path, found: str) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "digest": found}


def _record_path(path: Path) -> Path:
    return path.parent / ".podkiln" / f"{path.name}.verified.json"


def _recorded(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(_record_path(path).read_bytes())
        return record if record.keys() == {"size", "mtime_ns", "digest"} else None
    except (OSError, ValueError, AttributeError):
        return None


def _flush(folder: Path) -> None:
    """Make a rename last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems cannot, and lose nothing by it
    finally:
        os.close(descriptor)
