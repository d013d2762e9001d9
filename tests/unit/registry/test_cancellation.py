"""Whoever waits for a server's answer is woken from another thread, now and later."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from podkiln.registry.cancellation import SocketRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_a_wait_ends_when_it_is_cut(silent: str) -> None:
    sockets = SocketRegistry()
    threading.Timer(0.2, sockets.cut).start()
    begun = time.monotonic()
    with httpx.Client(timeout=30, trust_env=False) as http, pytest.raises(httpx.TransportError):
        http.get(silent, extensions=sockets.extensions)
    assert time.monotonic() - begun < 5


def test_a_connection_that_is_made_afterwards_is_cut_too(silent: str) -> None:
    sockets = SocketRegistry()
    sockets.cut()
    with httpx.Client(timeout=30, trust_env=False) as http, pytest.raises(httpx.TransportError):
        http.get(silent, extensions=sockets.extensions)


def test_only_what_was_sent_with_it_is_cut(silent: str) -> None:
    sockets = SocketRegistry()
    sockets.cut()
    with httpx.Client(timeout=0.2, trust_env=False) as http, pytest.raises(httpx.ReadTimeout):
        http.get(silent)
