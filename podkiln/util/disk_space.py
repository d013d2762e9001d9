"""A disk that is full, in one sentence: which folder lies on it, and how much is missing."""

from __future__ import annotations

import contextlib
import errno
import shutil
from typing import TYPE_CHECKING, Final

from podkiln.errors import PodkilnError
from podkiln.util import console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
WORDS: Final = "no space left on device"
"""How programs say it (strerror(3)), in any case."""
_HINT: Final = (
    "Make room there, or give another folder: --out DIR, XDG_CACHE_HOME for what podkiln keeps, TMPDIR for "
    "what is there for a while. "
    "`./build.py doctor` shows that, `./build.py clean` removes it."
)


def free(folder: Path) -> int:
    """Return the bytes that are free where a folder lies, or would; 0 where nobody can tell."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return 0


def error(folder: Path, needed: int | None = None, before: int | None = None) -> PodkilnError:
    """Return the error for a full disk.

    Args:
        folder: What is written to.
        needed: Bytes that were to be written, about; None: nobody knows.
        before: Bytes that were free then; None: those that are now.
    """
    had = free(folder) if before is None else before
    told = f"{console.size(had)} {'are' if before is None else 'were'} free"
    if needed is not None and needed > had:
        lacks = console.size(needed - had)
        told += f", and about {console.size(needed)} are needed: {lacks} are missing"
    return PodkilnError(f"The disk of {folder} is full: {told}.", hint=_HINT)


@contextlib.contextmanager
def room(folder: Path, needed: int | None = None) -> Iterator[None]:
    """Say of a disk that gets full meanwhile what is missing there. Raises PodkilnError for that OSError."""
    before = free(folder)
    try:
        yield
    except OSError as failed:
        if failed.errno not in FULL:
            raise
        raise error(folder, needed, before) from None
