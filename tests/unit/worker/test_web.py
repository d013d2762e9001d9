"""Which addresses a job's files are fetched from."""

from __future__ import annotations

import asyncio
import socket

import pytest

from worker.web import PublicWeb, is_public

PUBLIC = ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
# Loopback, private, link-local (a cloud's metadata), shared (RFC 6598), multicast, none; such in IPv6.
OTHER = [
    *(
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "0.0.0.0",
    ),
    *("::1", "::", "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254"),
    *("64:ff9b::169.254.169.254", "::127.0.0.1", "2002:a9fe:a9fe::1", "fec0::1"),
    *("localhost", ""),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_reached(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", OTHER)
def test_all_others_are_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("addresses", "refused"),
    [
        (["10.1.2.3"], True),
        (["8.8.8.8"], False),
        (["8.8.8.8", "10.1.2.3"], False),
        (["10.1.2.3", "8.8.8.8"], False),
    ],
)
def test_a_host_is_refused_where_none_of_its_addresses_is_public(
    addresses: list[str], *, refused: bool
) -> None:
    async def work() -> bool:
        async with PublicWeb() as web:
            for address in addresses:
                about = (socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 80))
                try:
                    web._socket(about).close()
                except PermissionError:
                    assert address == "10.1.2.3"
            return web.refused

    assert asyncio.run(work()) is refused
