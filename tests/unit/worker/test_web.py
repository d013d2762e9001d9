"""Which addresses a job's files are fetched from."""

from __future__ import annotations

import pytest

from worker.web import is_public

PUBLIC = ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"]
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
    *("localhost", ""),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_reached(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", OTHER)
def test_all_others_are_not(address: str) -> None:
    assert not is_public(address)
