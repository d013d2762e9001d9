"""Where the .debs of an archive may be fetched from: a mirror that is given, then what apt knows here.

scripts/build/install-packages.sh asks the apt of the base for the same.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from podkiln.config import apt_archives
from podkiln.errors import CommandError
from podkiln.util import process

# Release information says what archive a mirror serves, by whatever name it goes.
_TARGETS: Final = ("apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Identifier: Packages")
# Debian 13 and newer know the snapshot service: apt.conf(5), Acquire::Snapshots.
_SNAPSHOTS: Final = ("apt-config", "dump", "--format", "%f|%v%n", "Acquire::Snapshots::URI")
_SNAPSHOT_KEY: Final = re.compile(r".*::(Origin|Override::Label)::(?P<label>[^:]+)")


def of(archive: str, snapshot_at: str, given: str | None) -> list[str]:
    """Return the addresses to ask in turn, without a slash at the end; none where nothing is known.

    Args:
        archive: Its name, such as debian-security.
        snapshot_at: The time to ask snapshots for.
        given: A mirror of the main archive; its security archive has the name that Debian gives to its own.
    """
    label = next((each.label for each in apt_archives.load().values() if each.name == archive), None)
    found = [given.rstrip("/") + archive.removeprefix("debian")] if given else []
    found += [url.rstrip("/") for name, url in _rows(_TARGETS) if name == label]
    for key, url in _rows(_SNAPSHOTS):
        named = _SNAPSHOT_KEY.fullmatch(key)
        if named and named["label"] == label:
            found.append(url.replace("@SNAPSHOTID@", snapshot_at).rstrip("/"))
    return list(dict.fromkeys(found))


@cache
def _rows(argv: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return apt's answer as pairs; none on a machine without apt."""
    try:
        text = process.run(argv).stdout
    except CommandError:
        return []
    rows = (line.partition("|") for line in text.splitlines())
    return [(name, value) for name, _, value in rows if value]
