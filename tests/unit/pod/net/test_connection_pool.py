"""Connections are used again, and a kept one that the server has closed is no failure."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest
from servers.hub import Hub

from pod.net.connection_pool import ConnectionPool
from pod.net.http import Limits, get

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        running.add("org/repo", "a.safetensors", 100_000)
        running.add_file("b", b"plain")
        yield running


@pytest.fixture
def limits() -> Iterator[Limits]:
    kept = ConnectionPool()
    yield Limits(idle=kept)
    kept.close()


def fetch(url: str, limits: Limits) -> bytes:
    """Read as a transfer does, block by block."""
    body, view = b"", memoryview(bytearray(30_000))
    with get(url, {}, None, limits) as answer:
        while count := answer.receive(view):
            body += view[:count]
    return body


def test_hub_and_cdn_are_each_connected_to_once(hub: Hub, limits: Limits) -> None:
    for _ in range(3):
        assert len(fetch(f"{hub.url}/org/repo/resolve/main/a.safetensors", limits)) == 100_000
    assert len({hit.peer for hit in hub.hits if hit.where == "hub"}) == 1
    assert len({hit.peer for hit in hub.hits if hit.where == "cdn"}) == 1
    assert len(hub.hits) == 6


def test_without_a_place_to_keep_them_each_request_has_its_own(hub: Hub) -> None:
    for _ in range(3):
        fetch(f"{hub.url}/files/b", Limits())
    assert len({hit.peer for hit in hub.hits}) == 3


def test_an_answer_that_was_not_read_to_its_end_is_not_kept(hub: Hub, limits: Limits) -> None:
    """Its rest would be taken for the next answer."""
    url = f"{hub.url}/org/repo/resolve/main/a.safetensors"
    with get(url, {}, None, limits) as answer:
        answer.receive(memoryview(bytearray(10)))
    assert limits.idle
    assert limits.idle.take(hub.cdn_url) is None
    assert len(fetch(url, limits)) == 100_000
    assert len({hit.peer for hit in hub.hits if hit.where == "cdn"}) == 2


def test_a_connection_that_the_server_has_closed_meanwhile_is_replaced(hub: Hub, limits: Limits) -> None:
    fetch(f"{hub.url}/files/b", limits)
    assert limits.idle
    origin = f"http://127.0.0.1:{hub.url.rpartition(':')[2]}"
    kept = limits.idle.take(origin)
    assert kept
    kept.sock.shutdown(2)
    limits.idle.give(origin, kept)
    assert fetch(f"{hub.url}/files/b", limits) == b"plain"


def test_what_has_been_idle_for_long_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.0, 11.5])
    monkeypatch.setattr("pod.net.connection_pool.time.monotonic", lambda: next(clock))
    kept = ConnectionPool()
    old, young, other = (http.client.HTTPConnection("hub.test") for _ in range(3))
    for origin, connection in (("a", old), ("a", young), ("b", other)):
        kept.give(origin, connection)
    assert kept.take("a") is None  # 10.5 s and more
    monkeypatch.setattr("pod.net.connection_pool.time.monotonic", lambda: 11.5)
    assert kept.take("b") is other


def test_the_one_that_was_used_last_is_taken_first() -> None:
    kept = ConnectionPool(most=2)
    connections = [http.client.HTTPConnection("hub.test") for _ in range(3)]
    for connection in connections:
        kept.give("a", connection)
    assert kept.take("a") is connections[1]  # the third was one too many
    assert kept.take("c") is None
    assert kept.take("a") is connections[0]
    assert kept.take("a") is None
