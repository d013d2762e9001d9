"""Where things are kept that can be made again (XDG base directory specification), and who uses them now."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from podkiln.errors import UsageError
from podkiln.util import lock_file

if TYPE_CHECKING:
    from collections.abc import Iterator

AUTHORITIES: Final = "ca"
BASE: Final = "base"
ENGINES: Final = "engines"
EXPORTS: Final = "exports"
LAYERS: Final = "layers"
PULLED: Final = "pulled"
REBUILDS: Final = "rebuilds"
SOURCES: Final = "sources"
UPPERMOST: Final = "uppermost"
"""The folders in it; podkiln.pipeline.kept says what is in each."""


def path() -> Path:
    """Return podkiln's folder there: XDG_CACHE_HOME/podkiln, or ~/.cache/podkiln."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root).absolute() / "podkiln"


@contextlib.contextmanager
def in_use() -> Iterator[None]:
    """Keep what is there from being cleaned away; builds may use it together. Raises UsageError."""
    with lock_file.open_in(path(), f"The cache folder {path()}") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def unused() -> Iterator[None]:
    """Keep builds from using what is there. Raises UsageError while one does, OSError."""
    folder = path()
    # A build of an earlier podkiln holds the export of its builder alone.
    exports = [lock for name in (EXPORTS, UPPERMOST) for lock in (folder / name).glob(f"*/{lock_file.NAME}")]
    with contextlib.ExitStack() as held:
        for name in (folder / lock_file.NAME, *sorted(exports)):
            lock = held.enter_context(lock_file.open_file(name))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"A build is using {folder}, so nothing was removed.", hint="Wait for it, and clean then."
                ) from None
        yield
