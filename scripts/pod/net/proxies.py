"""The proxies that the environment names: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in either case.

The one of a scheme goes before ALL_PROXY, as in curl. NO_PROXY is read as urllib.request reads it: hosts,
with or without a port, and what ends in them; `*` is all of them.
"""

from __future__ import annotations

import base64
import urllib.request
from urllib.parse import SplitResult, unquote, urlsplit

from pod.util.dataclass import dataclass, field

PORTS = {"http": 80, "https": 443}


class ProxyError(ValueError):
    """No proxy can be used by the address that a variable gives: the message names it, not what it holds."""


@dataclass(frozen=True)
class Proxy:
    """One proxy: where it is, and what it is shown to let us through (Proxy-Authorization)."""

    host: str
    port: int
    headers: dict[str, str] = field(repr=False)


def proxy_for(url: SplitResult) -> Proxy | None:
    """Return the proxy on the way to a http or https URL; None without one, or where NO_PROXY names the host.

    Raises ProxyError for one that is needed and cannot be used; ValueError for a URL with an invalid port.
    """
    named = urllib.request.getproxies()
    scheme = next((each for each in (url.scheme, "all") if each in named), None)
    if scheme is None or _is_excepted(url, named.get("no", "")):
        return None
    try:
        return _parse(named[scheme])
    except ValueError:  # its words may hold the address, and that a password
        variable = f"{scheme.upper()}_PROXY"
        raise ProxyError(f"{variable} is not the address of a proxy, http://HOST:PORT") from None


def _is_excepted(url: SplitResult, no_proxy: str) -> bool:
    if "*" in [name.strip() for name in no_proxy.split(",")]:
        return True
    host = url.hostname or ""
    place = f"[{host}]" if ":" in host else host
    port = url.port or PORTS[url.scheme]
    return any(urllib.request.proxy_bypass(each) for each in (f"{place}:{port}", host))


def _parse(text: str) -> Proxy:
    """Read `http://USER:PASSWORD@HOST:PORT`. Raises ValueError."""
    parts = urlsplit(text if "://" in text else f"http://{text.removeprefix('//')}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("no http://HOST:PORT")
    headers = {}
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, parts.port or PORTS["http"], headers)
