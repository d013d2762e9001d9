"""Files that a job names by an address: fetched from public hosts alone.

A job comes from whoever has the endpoint's key, and its worker stands in a network of its own: an address
there, or the metadata service of a cloud, is nobody's to read through it. So each connection is looked at
when it is made, with the address that it goes to: names that resolve to such an address, redirects to one and
numbers in the place of a name come by here all alike. The runpod SDK has the same rule for its downloads.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

if TYPE_CHECKING:
    from aiohttp.connector import AddrInfoType


class PublicWeb:
    """A session that reaches public addresses; `close` ends it.

    Args:
        private: Reach every address.
    """

    def __init__(self, *, private: bool = False) -> None:
        self._private = private
        self._refused = self._tried = False
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_start.append(self._begin)
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=self._socket), trace_configs=[trace]
        )

    @property
    def refused(self) -> bool:
        """Whether the last host has no address that may be reached: a redirect leads to one of its own."""
        return self._refused and not self._tried

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def _begin(self, *_: object) -> None:
        self._refused = self._tried = False

    def _socket(self, about: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = about
        if not self._private and not is_public(address[0]):
            self._refused = True
            raise OSError(errno.EACCES, "not a public address")
        self._tried = True
        return socket.socket(family, kind, protocol)


# Ways to write an IPv4 address as an IPv6 one, and how many bits stand behind it: RFC 6052, 2.1 (a gateway
# goes on to it), RFC 4291, 2.5.5.1, and RFC 3056.
_HOLDERS: Final = (
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
)


def is_public(address: Any) -> bool:
    """Tell whether an address, as numbers, is one of the public internet."""
    try:
        found = ipaddress.ip_address(str(address).partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.is_site_local:
            return False
        found = found.ipv4_mapped or _held(found) or found
    return found.is_global and not found.is_multicast


def _held(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 one leads to; None where it leads to none."""
    for network, behind in _HOLDERS:
        if address in network:
            return ipaddress.IPv4Address(int(address) >> behind & 0xFFFFFFFF)
    return None
