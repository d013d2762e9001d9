"""A streamed body arrives as it was given, its answer is heard, and a wait ends: over real sockets."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from podkiln.registry import streaming_http
from podkiln.registry.cancellation import SocketRegistry
from podkiln.registry.streaming_http import EndedEarlyError, Response, StreamingConnection, Timeouts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.oci.tar_layer import Chunk

OK = b"HTTP/1.1 202 Accepted\r\nLocation: /next\r\nContent-Length: 4\r\n\r\ndone"
BODY = [b"first", memoryview(b"second"), b"x" * 300_000]
LENGTH = {"Content-Length": str(sum(map(len, BODY)))}
CHUNKED = b"5\r\nfirst\r\n6\r\nsecond\r\n493e0\r\n" + b"x" * 300_000 + b"\r\n0\r\n\r\n"


@dataclass
class Server:
    """Takes connections; answers once it has read what ends with `until`, then goes on, or closes."""

    answer: bytes = OK
    until: bytes = b"0\r\n\r\n"
    closes: bool = False
    heard: list[bytes] = field(default_factory=list)
    connections: int = 0

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)

    @property
    def url(self) -> httpx.URL:
        return httpx.URL(f"http://127.0.0.1:{self._listening.getsockname()[1]}/v2/uploads/1?a=%3D")

    def _take(self) -> None:
        while True:
            try:
                taken, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            with taken:
                self._talk(taken)

    def _talk(self, taken: socket.socket) -> None:
        taken.settimeout(10)
        heard = b""
        while True:
            try:
                piece = taken.recv(1 << 16)
            except OSError:
                return
            heard += piece
            if not piece or heard.endswith(self.until):
                self.heard += [heard] if heard else []
                heard = b""
                if piece and self.answer:
                    taken.sendall(self.answer)
                if self.closes or not piece:
                    return


def send(server: Server, chunks: Any = BODY, headers: Any = None, **seconds: float) -> Response:
    with closing(StreamingConnection(ssl.create_default_context(), SocketRegistry(), direct=True)) as sender:
        return send_by(sender, server, chunks, headers, **seconds)


def send_by(
    sender: StreamingConnection, server: Server, chunks: Any = BODY, headers: Any = None, **seconds: float
) -> Response:
    patience = Timeouts(**{"connect": 5.0, "write": 5.0, "read": 5.0, "grace": 0.3, **seconds})
    return sender.send("PATCH", server.url, {"X-A": "b", **(headers or {})}, chunks, patience, 100)


def test_a_body_of_unknown_length_is_sent_in_chunks() -> None:
    with Server() as server:
        answer = send(server)
        assert (answer.status, answer.headers["location"], answer.body) == (202, "/next", b"done")
        head, _, body = server.heard[0].partition(b"\r\n\r\n")
        assert body == CHUNKED
        lines = head.decode().split("\r\n")
        assert lines[0] == "PATCH /v2/uploads/1?a=%3D HTTP/1.1"
        assert {"X-A: b", "Transfer-Encoding: chunked", f"Host: {server.url.netloc.decode()}"} <= {*lines}


def test_a_body_of_known_length_is_sent_as_it_is() -> None:
    with Server(until=b"x" * 300_000) as server:
        send(server, headers=LENGTH)
        head, _, body = server.heard[0].partition(b"\r\n\r\n")
        assert body == b"".join(map(bytes, BODY))
        assert b"chunked" not in head


def test_what_is_framed_is_the_memory_that_was_given() -> None:
    view = memoryview(b"weights")
    assert any(each is view for each in streaming_http._framed([view]))


def test_a_connection_is_used_again() -> None:
    with (
        Server() as server,
        closing(StreamingConnection(ssl.create_default_context(), SocketRegistry(), direct=True)) as one,
    ):
        for _ in range(3):
            send_by(one, server)
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer", [OK, OK.replace(b"4\r\n\r\n", b"4\r\nConnection: close\r\n\r\n")], ids=["silently", "by word"]
)
def test_one_that_was_closed_meanwhile_is_made_anew(answer: bytes) -> None:
    with (
        Server(answer, closes=True) as server,
        closing(StreamingConnection(ssl.create_default_context(), SocketRegistry(), direct=True)) as one,
    ):
        for _ in range(3):
            assert send_by(one, server).status == 202
            time.sleep(0.05)
        assert server.connections == 3


def test_who_does_not_want_the_rest_may_say_why() -> None:
    """The answer comes while most of the body is still to be sent, and then nobody reads."""
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    with Server(answer, until=b"", closes=True) as server:
        body = (b"y" * 65536 for _ in range(1000))
        try:
            said = send(server, body)
        except httpx.TransportError:  # the reset overtook the answer, as TCP allows
            return
        assert (said.status, said.body) == (413, b"no")


def early(*chunks: Chunk) -> Iterator[Chunk]:
    yield from chunks
    raise EndedEarlyError


def test_a_body_that_ends_early_is_ended_and_its_answer_heard() -> None:
    with Server() as server:
        assert send(server, early(b"abc")).status == 202
        assert server.heard[0].endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")


def test_after_an_early_end_nobody_waits_for_long() -> None:
    begun = time.monotonic()
    with Server(answer=b"") as server, pytest.raises(httpx.ReadTimeout):
        send(server, early(b"abc"), read=30.0, grace=0.2)
    assert time.monotonic() - begun < 5


def test_a_body_whose_length_was_told_cannot_end_early() -> None:
    with Server() as server, pytest.raises(httpx.WriteError, match="ended early"):
        send(server, early(b"first"), LENGTH, read=30.0)


def test_a_failure_of_the_body_is_passed_on() -> None:
    def broken() -> Iterator[bytes]:
        yield b"a"
        raise KeyboardInterrupt

    with Server() as server, pytest.raises(KeyboardInterrupt):
        send(server, broken())


FAILURES = [
    (b"", {"read": 0.2}, httpx.ReadTimeout),
    (b"nonsense\r\n\r\n", {}, httpx.RemoteProtocolError),
    (b"HTTP/1.1 202 OK\r\nContent-Length: 99\r\n\r\nx", {"write": 0.2}, httpx.ReadTimeout),
]


@pytest.mark.parametrize(("answer", "seconds", "error"), FAILURES, ids=["none", "no HTTP", "half of one"])
def test_an_answer_that_is_none(answer: bytes, seconds: Any, error: type[Exception]) -> None:
    with Server(answer) as server, pytest.raises(error):
        send(server, **({"read": 0.2} | seconds))


def test_a_long_answer_is_not_read_to_its_end() -> None:
    body = b"z" * 5000
    with Server(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + body) as server:
        assert send(server).body == body[:100]


def test_one_who_does_not_read_is_not_waited_for_for_ever() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,
        closing(StreamingConnection(ssl.create_default_context(), SocketRegistry(), direct=True)) as sender,
    ):
        url = httpx.URL(f"http://127.0.0.1:{deaf.getsockname()[1]}/")
        chunks = (b"y" * (1 << 20) for _ in range(100))
        with pytest.raises(httpx.WriteTimeout):
            sender.send("PATCH", url, {}, chunks, Timeouts(5, 0.2, 5, 0.2), 100)


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = httpx.URL(f"http://127.0.0.1:{gone.getsockname()[1]}/")
    with closing(StreamingConnection(ssl.create_default_context(), SocketRegistry(), direct=True)) as sender:
        with pytest.raises(httpx.ConnectError) as caught:
            sender.send("PATCH", url, {}, [], Timeouts(5, 5, 5, 5), 100)
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_a_wait_ends_when_its_socket_is_cut() -> None:
    sockets = SocketRegistry()
    threading.Timer(0.2, sockets.cut).start()
    begun = time.monotonic()
    with (
        Server(answer=b"") as server,
        closing(StreamingConnection(ssl.create_default_context(), sockets, direct=True)) as sender,
        pytest.raises(httpx.TransportError),
    ):
        send_by(sender, server, read=30.0)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("direct", [True, False])
def test_a_proxy_is_used_unless_it_is_between_us_and_ourselves(
    monkeypatch: pytest.MonkeyPatch, *, direct: bool
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Server() as proxy, Server() as server:
        monkeypatch.setenv("http_proxy", f"http://{proxy.url.netloc.decode()}")
        with closing(
            StreamingConnection(ssl.create_default_context(), SocketRegistry(), direct=direct)
        ) as sender:
            for _ in range(2):
                send_by(sender, server)
        asked, other = (server, proxy) if direct else (proxy, server)
        assert (asked.connections, other.connections) == (1, 0)
        target = server.url.raw_path.decode() if direct else str(server.url)
        assert all(heard.startswith(f"PATCH {target} HTTP/1.1".encode()) for heard in asked.heard)
