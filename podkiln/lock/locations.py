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

from podkiln.config import cuda_releases, variant
from podkiln.config.cuda_releases import AMD64
from podkiln.errors import LockError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant

LOCKS = variant.SHIPPED / "locks"
WEIGHTS = "weights.json"
APT = "apt"
ADDITIONS = "additions"
NODES = "nodes"
SERVE = "serve"
MODEL = "model.json"
MODELS = "models"
FAMILIES = "families.json"


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


def kin(described: LoadedVariant) -> Path:
    """Return the lock of the runtime that a variant's differs from in CUDA or platform only, if at all."""
    version = described.spec.runtime.comfyui.version
    return LOCKS / cuda_releases.runtime_name(version, cuda_releases.default(), AMD64)


def apt_folders(described: LoadedVariant) -> tuple[Path, ...]:
    """Return where the apt locks of a variant's bases lie: beside a user's file, then with the shipped.

    Last those of the shipped variants: Debian's packages are the base's, whichever ComfyUI is built.
    """
    own = user_lock_dir(described)
    shipped = [LOCKS / _apt_of(described) / APT]
    if described.platform == AMD64:  # one digest of a base may stand for those of several machines
        shipped.append(default_runtime() / APT)
    return tuple(dict.fromkeys([own / APT, *shipped] if own else shipped))


def default_runtime() -> Path:
    """Return the folder of the lock that the shipped variants have; others begin with its versions."""
    return LOCKS / variant.load(variant.names()[0]).spec.runtime.name


def _apt_of(described: LoadedVariant) -> str:
    """Return the runtime that holds a variant's apt locks: CUDA has no part in them, the platform has."""
    runtime, platform = described.spec.runtime, described.platform
    version = runtime.comfyui.version
    if runtime.name == cuda_releases.runtime_name(version, runtime.cuda, platform):
        return cuda_releases.runtime_name(version, cuda_releases.default(), platform)
    return runtime.name


def additions_folder(described: LoadedVariant) -> Path:
    """Return where the lock of what a variant adds lies: beside its file, or with the shipped ones."""
    own = user_lock_dir(described)
    return own / ADDITIONS if own else LOCKS / ADDITIONS / described.name


def python_additions_folder(described: LoadedVariant) -> Path:
    """Return where the Python packages that a variant adds are locked: each runtime has its own."""
    return additions_folder(described) / described.spec.runtime.name


def serving_folders(described: LoadedVariant) -> tuple[Path, ...]:
    """Return where the packages that a variant takes jobs with are locked: its own place, and the shipped."""
    own, runtime = user_lock_dir(described), described.spec.runtime.name
    shipped = LOCKS / SERVE / runtime
    return (own / SERVE / runtime, shipped) if own else (shipped,)


def usual_serving_folder() -> Path:
    """Return the lock of this kind that others begin with."""
    return LOCKS / SERVE / default_runtime().name


def node_folders(described: LoadedVariant) -> tuple[Path, ...]:
    """Return where the lock of a variant's nodes lies, and then where those of shipped variants do."""
    own, runtime = user_lock_dir(described), described.spec.runtime.name
    place = own / NODES / runtime if own else LOCKS / NODES / described.name / runtime
    return tuple(dict.fromkeys([place, *sorted((LOCKS / NODES).glob(f"*/{runtime}"))]))


def kin_node_folders(described: LoadedVariant) -> tuple[Path, ...]:
    """Return the locks of nodes whose versions a first one begins with: of the usual CUDA, or release."""
    names = dict.fromkeys((kin(described).name, default_runtime().name))
    return tuple(place for name in names for place in sorted((LOCKS / NODES).glob(f"*/{name}"), reverse=True))


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
