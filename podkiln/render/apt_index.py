"""The apt lock as files of a build context: what scripts/build/install-packages.sh gives to apt, and no more.

Below apt/: for each archive its index, packed; the time that snapshots of the archives are asked for; and
what the base has to hold.
"""

from __future__ import annotations

import lzma
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from podkiln.lock import apt

if TYPE_CHECKING:
    from collections.abc import Collection

    from podkiln.lock.apt import AptLock, BaseLock

FOLDER: Final = "apt/"
"""Where they lie in the context."""
ADDED: Final = "apt-added/"
"""Where those of a variant's additions lie."""
SNAPSHOT: Final = "snapshot"
"""The name of the file with the time of the snapshots."""


def texts(locked: AptLock | None, folder: str = FOLDER) -> dict[str, bytes]:
    """Return the text files, by path in the context: none without a lock."""
    if locked is None:
        return {}
    own = f"{locked.index.base_packages}  -\n".encode()
    return {f"{folder}base.sha256": own, f"{folder}{SNAPSHOT}": snapshot(locked)}


def snapshot(locked: AptLock | BaseLock) -> bytes:
    """Return the file that says what time to ask snapshots of the archives for."""
    return f"{locked.index.snapshot_at}\n".encode()


def packed(locked: AptLock | None, folder: str = FOLDER) -> dict[str, bytes]:
    """Return the indexes, by path in the context."""
    return {f"{folder}{path}": data for path, data in indexes(locked).items()} if locked else {}


def with_restored(added: AptLock | None, shared: AptLock | None, names: Collection[str]) -> AptLock | None:
    """Return the lock of additions with shared packages in it that are installed once more."""
    if added is None or shared is None or not names:
        return added
    archives = {each.name: each for each in (*shared.index.archives, *added.index.archives)}
    packages = {
        name: (
            *added.packages.get(name, ()),
            *(each for each in shared.packages.get(name, ()) if each.name in names),
        )
        for name in sorted(archives)
    }
    index = added.index.model_copy(
        update={"archives": tuple(archives[name] for name in packages if packages[name])}
    )
    return replace(added, index=index, packages={name: each for name, each in packages.items() if each})


def indexes(locked: AptLock | BaseLock) -> dict[str, bytes]:
    """Return the index of each archive, by path. Packed, because apt warns about plain ones."""
    return {
        f"{name}/Packages.xz": lzma.compress(apt.as_text(packages).encode())
        for name, packages in locked.packages.items()
    }
