"""Whether the places that models come from can be reached, and whether the clock is right enough for them."""

from __future__ import annotations

import email.utils
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pod.util.finding import WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LIMIT = 5.0  # seconds for each question
SKEW = 300.0  # seconds: certificates and signed addresses live longer than that, and not by much


def examine(addresses: Iterable[str], made: float | None) -> list[Finding]:
    """Ask for each address's host, then for the time.

    Args:
        addresses: URLs of the hubs that something is to be fetched from.
        made: When the image was made, in seconds since 1970: no clock may be before that.
    """
    urls = list(dict.fromkeys(addresses))
    hosts = list(dict.fromkeys(urlsplit(url).hostname or "" for url in urls))
    unknown = _unresolved(hosts)
    found = [
        Finding(
            WARNING,
            "dns",
            f"DNS does not answer for {host} ({why}): models cannot be fetched from there; on RunPod switch "
            "Global Networking off, elsewhere look at the pod's network",
        )
        for host, why in unknown.items()
    ]
    reachable = [url for url in urls if (urlsplit(url).hostname or "") not in unknown]
    return [*found, *clock(_theirs(reachable), time.time(), made)]


def clock(theirs: float | None, ours: float, made: float | None) -> list[Finding]:
    """Compare our clock with a server's or, for want of that, with the time when the image was made."""
    if theirs is not None and abs(ours - theirs) > SKEW:
        off = ours - theirs
        which = "ahead" if off > 0 else "behind"
        return [
            Finding(
                WARNING,
                "clock",
                f"the clock of this machine is {_duration(abs(off))} {which}: certificates and tokens "
                "will be refused; rent another machine, or tell its owner",
            )
        ]
    if theirs is None and made is not None and ours < made - SKEW:
        return [
            Finding(
                WARNING,
                "clock",
                f"the clock of this machine is {_duration(made - ours)} before this image was made: "
                "certificates will be refused; rent another machine, or tell its owner",
            )
        ]
    return []


def _duration(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


def _unresolved(hosts: Sequence[str]) -> dict[str, str]:
    """Return the hosts that have no address, and why; a resolver that hangs is not waited for."""
    said = dict.fromkeys(hosts, f"no answer within {LIMIT:g} s")

    def ask(host: str) -> None:
        try:
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            said[host] = error.strerror or str(error)
        else:
            del said[host]

    threads = [threading.Thread(target=ask, args=(host,), daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    end = time.monotonic() + LIMIT
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(said)


def _theirs(urls: Sequence[str]) -> float | None:
    """Return the first server's time, corrected for half the way; None where no server gives it.

    Its certificate is not checked: with a wrong clock none would be valid, and nothing secret is said.
    """
    import ssl  # noqa: PLC0415 - 20 ms

    from pod.net.http import Limits, RefusedError, TransientError, get  # noqa: PLC0415 - the same

    limits = Limits(connect=LIMIT, read=LIMIT, tls=ssl._create_unverified_context())  # noqa: SLF001, S323
    for url in urls:
        begun = time.time()
        try:
            with get(url, {}, None, limits) as answer:
                date = answer.first("Date")
        except (TransientError, RefusedError):
            continue
        try:
            theirs = email.utils.parsedate_to_datetime(date or "").timestamp()
        except (TypeError, ValueError, IndexError, OverflowError):  # a date of others'
            continue
        return theirs - (time.time() - begun) / 2
    return None
