"""The head of an answer: interim answers are passed over, and none takes longer than it may."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pod.net.connection_pool import ConnectionPool
from pod.net.http import Limits, TransientError, get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serve = Callable[[Callable[[socket.socket], None]], str]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
LIMIT = 0.4  # seconds


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer each request of each connection by a function of its socket; returns the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as stack:

        def each(connection: socket.socket, answer: Callable[[socket.socket], None]) -> None:
            with connection, contextlib.suppress(OSError):
                while connection.recv(65536):
                    answer(connection)

        def work(answer: Callable[[socket.socket], None]) -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    stack.callback(connection.close)
                    threading.Thread(target=each, args=(connection, answer), daemon=True).start()

        def start(answer: Callable[[socket.socket], None]) -> str:
            threading.Thread(target=work, args=(answer,), daemon=True).start()
            return f"http://127.0.0.1:{listening.getsockname()[1]}/a"

        yield start
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "interim",
    [
        HINTS,
        b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS + HINTS,
        b"HTTP/1.1 102 Processing\r\nContent-Length: 7\r\nConnection: close\r\n\r\n",
    ],
)
def test_interim_answers_are_passed_over(serve: Serve, interim: bytes) -> None:
    url = serve(lambda connection: connection.sendall(interim + ANSWER))
    limits = Limits(1, 1, idle=ConnectionPool())
    for _ in range(2):  # the second on the same connection
        with get(url, {}, None, limits) as answer:
            assert (answer.status, answer.headers["Link"], answer.read(100)) == (200, None, b"body")
    assert limits.idle
    limits.idle.close()


def dripping(connection: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100:
        connection.sendall(bytes([byte]))
        time.sleep(LIMIT / 8)


def endless(interim: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        while True:
            connection.sendall(interim)
            time.sleep(LIMIT / 8)

    return answer


@pytest.mark.parametrize("answer", [dripping, endless(b"HTTP/1.1 100 Continue\r\n\r\n"), endless(HINTS)])
def test_a_head_that_does_not_end_is_given_up(serve: Serve, answer: Callable[[socket.socket], None]) -> None:
    url = serve(answer)
    begun = time.monotonic()
    with pytest.raises(TransientError, match="no answer in time"):
        get(url, {}, None, Limits(1, LIMIT))
    assert LIMIT <= time.monotonic() - begun < 4 * LIMIT


def test_interim_answers_at_full_speed_are_given_up_too(serve: Serve) -> None:
    url = serve(lambda connection: connection.sendall(HINTS * 1000))
    with pytest.raises(TransientError, match="no answer in time"):
        get(url, {}, None, Limits(1, 10))


def test_the_body_may_take_longer_than_the_head(serve: Serve) -> None:
    def answer(connection: socket.socket) -> None:
        for part in (ANSWER[:-4], b"b", b"o", b"d", b"y"):
            connection.sendall(part)
            time.sleep(LIMIT / 2)

    with get(serve(answer), {}, None, Limits(1, LIMIT)) as response:
        assert response.read(100) == b"body"


@pytest.mark.parametrize("head", [b"Content-Length: 999", b"Transfer-Encoding: chunked", b"X: y"])
def test_a_short_answer_that_does_not_end_is_given_up(
    serve: Serve, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte that comes would buy it the whole time to wait again."""
    monkeypatch.setattr("pod.net.http._SHORT_SECONDS", LIMIT)
    drip = endless(b"1\r\nx\r\n")

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        drip(connection)

    begun = time.monotonic()
    with (
        pytest.raises(TransientError, match="no answer in time"),
        get(serve(answer), {}, None, Limits(1, 1)) as a,
    ):
        a.read(1000)
    assert time.monotonic() - begun < 4 * LIMIT


def test_a_proxy_that_does_not_end_its_answer_is_given_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", serve(dripping).removesuffix("/a"))
    begun = time.monotonic()
    with pytest.raises(TransientError):
        get("https://models.example/a", {}, None, Limits(LIMIT, LIMIT))
    assert time.monotonic() - begun < 4 * LIMIT
