"""What fetches of source trees leave behind: folders of those that were killed, and what nobody uses."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pod.util import untrusted_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_PREFIX = ".unpacking-"
_DAY = 24 * 3600.0
UNUSED = 90 * _DAY  # seconds: a volume is shared by pods of other images, which need other commits


@contextlib.contextmanager
def unpacking(folder: Path) -> Iterator[Path]:
    """Yield a new folder in a folder of the container's, which goes at the end. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder) as made:
        descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):  # a disk without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process
            yield Path(made)
        finally:
            os.close(descriptor)


def clear(local: Path, wanted: Collection[Path]) -> None:
    """Remove what was unpacked in the container, but for what is wanted and what another fetch is at."""
    for place in (*_in(local / "nodes"), *_in(local / "code")):
        if place not in wanted:
            shutil.rmtree(place, ignore_errors=True)
    for place in _in(local):
        if place.name.startswith(_PREFIX):
            with contextlib.suppress(OSError), _locked(place):
                shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold a folder that no fetch is at. Raises OSError where one is."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def expire(kept: Path) -> None:
    """Remove archives that no start has used for long, and halves of those that never came whole.

    Args:
        kept: Has a folder for each node.
    """
    now = time.time()
    for place in (file for folder in _in(kept) for file in _in(folder)):
        half = place.name.startswith(".")
        if ".tar.gz" not in place.name:
            continue
        with contextlib.suppress(OSError):
            untrusted_files.check_folders(place)
            if now - place.lstat().st_mtime > (_DAY if half else UNUSED):
                untrusted_files.remove(place)


def _in(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
