"""Where locks lie: with the shipped ones, or beside a user's own variant file.

A runtime's lock is a folder, variants/locks/<runtime>/: `runtime.json` with the pins, one hash-locked
requirements file a Python layer, and in `apt/` a folder for each base (podkiln.lock.apt). The weights' lock,
variants/locks/weights.json, is shared by all runtimes. What a variant adds above its runtime's layers is
locked for it alone (podkiln.lock.additions).
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from podkiln.config import variant
from podkiln.errors import LockError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant

LOCKS = variant.SHIPPED / "locks"
WEIGHTS = "weights.json"
APT = "apt"
ADDITIONS = "additions"


def user_lock_dir(described: LoadedVariant) -> Path | None:
    """Return the folder of a user's own locks, `<file>.locks` beside the file; None for a shipped variant."""
    own = described.chain[0].path
    return None if own.resolve().parent == variant.SHIPPED else own.parent / f"{own.stem}.locks"


def folders(described: LoadedVariant) -> tuple[Path, Path]:
    """Return where a variant's runtime lock and weights lock lie: beside a user's file, if any."""
    own = user_lock_dir(described)
    name = described.spec.runtime.name
    runtime = own / name if own and is_there(own / name) else LOCKS / name
    weights = own / WEIGHTS if own and is_there(own / WEIGHTS) else LOCKS / WEIGHTS
    return runtime, weights


def apt_folders(described: LoadedVariant) -> tuple[Path, ...]:
    """Return where the apt locks of a variant's bases lie: beside a user's file, then with the shipped."""
    own = user_lock_dir(described)
    shipped = LOCKS / described.spec.runtime.name / APT
    return (own / APT, shipped) if own else (shipped,)


def additions_folder(described: LoadedVariant) -> Path:
    """Return where the lock of what a variant adds lies: beside its file, or with the shipped ones."""
    own = user_lock_dir(described)
    return own / ADDITIONS if own else LOCKS / ADDITIONS / described.name


def is_there(path: Path) -> bool:
    """Whether a user's own lock exists, even damaged (a dangling link, or a file in place of the folder)."""
    return os.path.lexists(path) or (os.path.lexists(path.parent) and not path.parent.is_dir())


def hint_for(described: LoadedVariant, hint: str | None) -> str | None:
    """Return a hint with the variant's own file in its commands: without, they lock the shipped ones."""
    return hint and hint.replace("`./build.py lock`", f"`./build.py lock{described.option}`")


@contextlib.contextmanager
def hinted(described: LoadedVariant) -> Iterator[None]:
    """Put the variant's own file into the hints of locks that cannot be read."""
    try:
        yield
    except LockError as damaged:
        damaged.hint = hint_for(described, damaged.hint)
        raise
