"""Whoever waits for a server's answer is woken from another thread, now and later."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from podkiln.registry.cancellation import Cancellation, CancelledError
from podkiln.registry.errors import ExchangeError
from podkiln.registry.http_client import HttpClient, HttpRequest, Timeouts

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENT = Timeouts(5, 5, 30, 30)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@contextmanager
def cancelled_after(seconds: float, *, grace: float = 30.0) -> Iterator[tuple[Cancellation, HttpClient]]:
    cancellation = Cancellation(grace)
    timer = threading.Timer(seconds, cancellation.cancel)
    timer.start()
    with (
        closing(cancellation),
        closing(HttpClient("localhost", ssl.create_default_context(), cancellation)) as one,
    ):
        yield cancellation, one
    timer.join()


@pytest.mark.parametrize(("method", "grace"), [("GET", 30.0), ("PUT", 30.0), ("POST", 0.2)])
def test_a_wait_ends_when_it_is_cancelled(silent: str, method: str, grace: float) -> None:
    begun = time.monotonic()
    with cancelled_after(0.2, grace=grace) as (_, client), pytest.raises(ExchangeError):
        client.send(HttpRequest(method, silent, body=b""), PATIENT)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("body", [b"", iter([b"x"])], ids=["POST", "stream"])
def test_what_may_have_begun_an_upload_gets_a_moment(silent: str, body: bytes) -> None:
    method = "PATCH" if body != b"" else "POST"
    begun = time.monotonic()
    with cancelled_after(0.1, grace=0.7) as (_, client), pytest.raises(ExchangeError):
        client.send(HttpRequest(method, silent, body=body), PATIENT)
    assert 0.7 < time.monotonic() - begun < 5


def test_a_connection_that_is_made_afterwards_is_cut_too(silent: str) -> None:
    with cancelled_after(0) as (cancellation, client):
        cancellation.event.wait(5)
        with pytest.raises(ExchangeError):
            client.send(HttpRequest("GET", silent), PATIENT)


def test_only_what_is_not_shielded_is_cut(silent: str) -> None:
    with cancelled_after(0) as (cancellation, client):
        cancellation.event.wait(5)
        with pytest.raises(CancelledError):
            cancellation.refuse()
        with cancellation.shield():
            cancellation.refuse()
            with pytest.raises(ExchangeError) as caught:
                client.send(HttpRequest("GET", silent), Timeouts(5, 5, 0.3, 5))
        assert isinstance(caught.value.__cause__, TimeoutError)
        with pytest.raises(CancelledError):
            cancellation.refuse()


def test_what_is_at_its_end_is_let_be() -> None:
    cancellation = Cancellation(30)
    own, other = socket.socketpair()
    with own, other, closing(cancellation):
        cancellation.watch(own, graceful=False)
        cancellation.release(own)
        cancellation.cancel()
        other.sendall(b"x")
        assert own.recv(1) == b"x"
