"""The proxies that the environment names: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."""

from __future__ import annotations

import base64
import urllib.request
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from podkiln.errors import RegistryError

_SCHEMES: Final = ("http", "https", "all")
_PORT: Final = 80


@dataclass(frozen=True)
class Proxy:
    """One proxy: where it is, and what it is shown to let us through (Proxy-Authorization)."""

    host: str
    port: int
    headers: dict[str, str] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `http://USER:PASSWORD@HOST:PORT`. Raises ValueError, which does not hold the address."""
        parts = urlsplit(text if "://" in text else f"http://{text}")
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("no http://HOST:PORT")
        headers = {}
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(parts.hostname, parts.port or _PORT, headers)


class Proxies:
    """The proxies on the way from here to a registry, and to where that sends us on."""

    def __init__(self, registry: str) -> None:
        """Read the environment. Raises RegistryError for a proxy that cannot be used."""
        self._registry = registry
        named = urllib.request.getproxies()
        unused = [name.strip() for name in named.get("no", "").split(",")]
        schemes = () if "*" in unused else _SCHEMES
        self._found = {scheme: self._parse(named[scheme]) for scheme in schemes if scheme in named}

    def _parse(self, text: str) -> Proxy:
        try:
            return Proxy.parse(text)
        except ValueError as wrong:  # its words may hold the address, and that a password
            raise RegistryError(
                f"Registry {self._registry} cannot be reached by the proxy of HTTP_PROXY, HTTPS_PROXY or "
                f"ALL_PROXY ({type(wrong).__name__}).",
                hint=f"Give it as http://HOST:PORT, or name {self._registry} in NO_PROXY.",
            ) from None

    def of(self, scheme: str, place: str) -> Proxy | None:
        """Return the proxy for HOST or HOST:PORT, unless NO_PROXY names that."""
        proxy = self._found.get(scheme) or self._found.get("all")
        return None if proxy is None or urllib.request.proxy_bypass(place) else proxy
