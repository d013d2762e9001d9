"""Whether the Debian packages of the bootstrapped base can still be fetched; if not, they are locked anew.

Mirrors drop what is superseded, and not every machine reaches the snapshot service that a build asks next.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import httpx2
from images import podkiln

from podkiln.build import apt_servers
from podkiln.config import variant
from podkiln.lock import apt, locations, reader
from podkiln.pipeline.planning import BOOTSTRAP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podkiln.lock.apt import AptLock, BaseLock


def require_packages() -> list[str]:
    """Lock the packages of today where a locked one is served no longer. Returns lines that say so."""
    # One connection a worker: to look a host up for each file takes seconds.
    with httpx2.Client(timeout=20) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(partial(_first_that_serves, client), _sources()))
    if all(found):
        return []
    done = podkiln("lock", "--upgrade", "apt", "--base", "bootstrap")
    assert done.returncode == 0, done.stderr
    return [
        f"{found.count(None)} locked Debian packages are served no longer, so these are locked anew:",
        *done.stdout.splitlines(),
        "Commit variants/locks: the bootstrapped base is another one now.",
    ]


def _sources() -> Iterator[Sequence[str]]:
    """Yield the addresses of each locked package, in the order in which a build asks them."""
    locks: list[AptLock | BaseLock | None] = [apt.read_base(locations.LOCKS / BOOTSTRAP)]
    locks += reader.apt_locks(variant.load("lazy")).values()
    for lock in filter(None, locks):
        for archive in lock.index.archives:
            servers = apt_servers.of(archive.name, lock.index.snapshot_at, None)
            for each in lock.packages[archive.name]:
                yield [f"{server}/{each.values['Filename']}" for server in servers]


def _first_that_serves(client: httpx2.Client, addresses: Sequence[str]) -> str | None:
    for address in addresses:
        try:
            if client.head(address, follow_redirects=True).is_success:
                return address
        except httpx2.HTTPError:
            continue
    return None
