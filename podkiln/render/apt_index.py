"""The apt lock as files of a build context: what scripts/build/install-packages.sh gives to apt, and no more.

Below apt/: for each archive its index, packed, and a list of the mirrors that its .debs may come from; and
what the base has to hold. Format of the lists: apt-transport-mirror(1).
"""

from __future__ import annotations

import lzma
from typing import TYPE_CHECKING, Final

from podkiln.lock import apt

if TYPE_CHECKING:
    from podkiln.lock.apt import AptLock, BaseLock

FOLDER: Final = "apt/"
"""Where they lie in the context."""
MOUNT: Final = "/apt"
"""Where the step that installs packages finds them."""


def texts(locked: AptLock | None) -> dict[str, bytes]:
    """Return the text files, by path in the context: none without a lock."""
    if locked is None:
        return {}
    own = f"{locked.index.base_packages}  -\n".encode()
    return {f"{FOLDER}base.sha256": own} | {f"{FOLDER}{path}": text for path, text in mirrors(locked).items()}


def mirrors(locked: AptLock | BaseLock) -> dict[str, bytes]:
    """Return the list of each archive, by name."""
    found = {}
    for archive in locked.index.archives:
        rows = (
            f"file:{MOUNT}/{archive.name}/\tpriority:1\ttype:index",
            f"{archive.mirror}/\tpriority:2\ttype:deb",
            f"{archive.snapshot}/{locked.index.snapshot_at}/\tpriority:3\ttype:deb",
        )
        found[f"{archive.name}.mirrors"] = "".join(f"{row}\n" for row in rows).encode()
    return found


def packed(locked: AptLock | None) -> dict[str, bytes]:
    """Return the indexes, by path in the context."""
    return {f"{FOLDER}{path}": data for path, data in indexes(locked).items()} if locked else {}


def indexes(locked: AptLock | BaseLock) -> dict[str, bytes]:
    """Return the index of each archive, by path. Packed, because apt warns about plain ones."""
    return {
        f"{name}/Packages.xz": lzma.compress(apt.as_text(packages).encode())
        for name, packages in locked.packages.items()
    }
