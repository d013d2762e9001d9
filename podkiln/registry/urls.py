"""URLs as registries give them, made whole and canonical: two that are the same are the same text.

Source: RFC 3986 (5.2 joining, 6.2.2 and 6.2.3 normal forms). What browsers leave unescaped stays so.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from pod.net.proxies import PORTS

_LONGEST: Final = 65536  # characters
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
_HOST: Final = re.compile(r"[!-~]*")
_PATH: Final = "!$%&'()*+,-./:;=@[\\]^_|~"
_QUERY: Final = _PATH + "?`{}"


def canonical(url: str, base: str = "") -> str:
    """Return a URL, which may be relative to `base`, without its login and its fragment.

    Neither belongs to what is asked for (RFC 9110, 4.2.4 and 7.1). Raises ValueError for what is not a URL.
    """
    if len(url) > _LONGEST or _CONTROLS.search(url):
        raise ValueError("too long, or with characters that cannot be printed")
    parts = urlsplit(urljoin(base, url))
    host, port = parts.hostname or "", parts.port
    if not host.isascii():
        host = host.encode("idna").decode()
    if not _HOST.fullmatch(host):
        raise ValueError("a host with a space in its name")
    place = f"[{host}]" if ":" in host else host
    if port is not None and port != PORTS.get(parts.scheme):
        place += f":{port}"
    path, query = quote(parts.path or "/", safe=_PATH), quote(parts.query, safe=_QUERY)
    return urlunsplit((parts.scheme, place, path, query, ""))


def place(url: str) -> str:
    """Return host and port of a canonical URL, as far as the port is told."""
    return urlsplit(url).netloc


def origin(url: str) -> str:
    """Return scheme, host and port of a canonical URL (RFC 6454)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
