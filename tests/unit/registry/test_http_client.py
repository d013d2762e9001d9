"""A body arrives as it was given, its answer is heard, and a wait ends: over real sockets."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pytest

from pod.net.response_head import TimedResponse, UnfinishedError
from podkiln.registry import http_client
from podkiln.registry.cancellation import Cancellation
from podkiln.registry.errors import (
    ConnectError,
    ExchangeError,
    TransientError,
    unreachable,
)
from podkiln.registry.http_client import EndedEarlyError, HttpClient, HttpRequest, Response, Timeouts

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
    def place(self) -> str:
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.place}/v2/uploads/1?a=%3D"

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


def client(host: str = "localhost", cancellation: Cancellation | None = None) -> HttpClient:
    return HttpClient(host, ssl.create_default_context(), cancellation or Cancellation(3))


def send(server: Server, chunks: Any = BODY, headers: Any = None, **seconds: float) -> Response:
    with closing(client()) as sender:
        return send_by(sender, server.url, chunks, headers, method="PATCH", **seconds)


def send_by(
    sender: HttpClient,
    url: str,
    chunks: Any = BODY,
    headers: Any = None,
    *,
    method: str = "PATCH",
    **seconds: float,
) -> Response:
    timeouts = Timeouts(**{"connect": 5.0, "write": 5.0, "read": 5.0, "grace": 0.3, **seconds})
    request = HttpRequest(method, url, {"X-A": "b", **(headers or {})}, chunks)
    with closing(sender.send(request, timeouts)) as incoming:
        body = incoming.read(100, timeouts.write)
    return Response(incoming.status, incoming.headers, body, incoming.url)


@contextmanager
def failing(kind: type[BaseException], error: type[ExchangeError] = ExchangeError) -> Iterator[None]:
    with pytest.raises(error) as caught:
        yield
    assert type(caught.value) is error
    assert isinstance(caught.value.__cause__, kind)


def test_a_body_of_unknown_length_is_sent_in_chunks() -> None:
    with Server() as server:
        answer = send(server)
        assert (answer.status, answer.headers["location"], answer.body) == (202, "/next", b"done")
        head, _, body = server.heard[0].partition(b"\r\n\r\n")
        assert body == CHUNKED
        lines = head.decode().split("\r\n")
        assert lines[0] == "PATCH /v2/uploads/1?a=%3D HTTP/1.1"
        assert {"X-A: b", "Transfer-Encoding: chunked", f"Host: {server.place}"} <= {*lines}


def test_a_body_of_known_length_is_sent_as_it_is() -> None:
    with Server(until=b"x" * 300_000) as server:
        send(server, headers=LENGTH)
        head, _, body = server.heard[0].partition(b"\r\n\r\n")
        assert body == b"".join(map(bytes, BODY))
        assert b"chunked" not in head


def test_what_is_framed_is_the_memory_that_was_given() -> None:
    view = memoryview(b"weights")
    assert any(each is view for each in http_client._framed([view]))


def test_a_connection_is_used_again() -> None:
    with (
        Server() as server,
        closing(client()) as one,
    ):
        for _ in range(3):
            send_by(one, server.url)
        assert server.connections == 1


def test_a_connection_that_nobody_uses_outlives_what_is_cancelled() -> None:
    cancellation = Cancellation(30)
    with Server() as server, closing(cancellation), closing(client(cancellation=cancellation)) as one:
        send_by(one, server.url)
        send_by(one, server.url, b"", method="GET")
        cancellation.cancel()
        with cancellation.shield():
            send_by(one, server.url)
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer", [OK, OK.replace(b"4\r\n\r\n", b"4\r\nConnection: close\r\n\r\n")], ids=["silently", "by word"]
)
def test_one_that_was_closed_meanwhile_is_made_anew(answer: bytes) -> None:
    with (
        Server(answer, closes=True) as server,
        closing(client()) as one,
    ):
        for _ in range(3):
            assert send_by(one, server.url).status == 202
            time.sleep(0.05)
        assert server.connections == 3


def test_who_does_not_want_the_rest_may_say_why() -> None:
    """The answer comes while most of the body is still to be sent, and then nobody reads."""
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    with Server(answer, until=b"", closes=True) as server:
        body = (b"y" * 65536 for _ in range(1000))
        try:
            said = send(server, body)
        except ExchangeError:  # the reset overtook the answer, as TCP allows
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
    with Server(answer=b"") as server, failing(TimeoutError):
        send(server, early(b"abc"), read=30.0, grace=0.2)
    assert time.monotonic() - begun < 5


def test_a_body_whose_length_was_told_cannot_end_early() -> None:
    with Server() as server, pytest.raises(ExchangeError, match="ended early"):
        send(server, early(b"first"), LENGTH, read=30.0)


def test_a_failure_of_the_body_is_passed_on() -> None:
    def broken() -> Iterator[bytes]:
        yield b"a"
        raise KeyboardInterrupt

    with Server() as server, pytest.raises(KeyboardInterrupt):
        send(server, broken())


FAILURES = [
    (b"", TimeoutError),
    (b"nonsense\r\n\r\n", http.client.HTTPException),
    (b"HTTP/1.1 202 OK\r\nContent-Length: 99\r\n\r\nx", TimeoutError),
]


@pytest.mark.parametrize(("answer", "cause"), FAILURES, ids=["none", "no HTTP", "half of one"])
def test_an_answer_that_is_none(answer: bytes, cause: type[Exception]) -> None:
    with Server(answer) as server, failing(cause):
        send(server, read=0.2)


@pytest.mark.parametrize(
    "head",
    ["Content-Length: 99\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n5\r\nx"],
    ids=["length", "chunks"],
)
def test_an_answer_that_is_cut_is_none(head: str) -> None:
    with Server(f"HTTP/1.1 202 OK\r\n{head}".encode(), closes=True) as server, pytest.raises(ExchangeError):
        send(server)


def test_an_answer_that_drips_is_not_waited_for_to_its_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, closing(client()) as sender:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"

        def drip() -> None:
            with listening.accept()[0] as taken, suppress(OSError):
                taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
                for _ in range(50):
                    taken.sendall(b".")
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        with failing(UnfinishedError):
            send_by(sender, url, None, method="GET", write=0.3)


def test_what_only_announces_an_answer_is_passed_over() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    with Server(early + OK) as server, closing(client()) as one:
        for _ in range(2):
            assert (answer := send_by(one, server.url)).status == 202
            assert "link" not in answer.headers
        assert server.connections == 1


def test_headers_are_read_as_they_are_meant() -> None:
    lines = "Www-Authenticate: Basic\r\nWWW-Authenticate: Bearer\r\n realm=x\r\nLocation: /\xe9\r\n"
    with Server(f"HTTP/1.1 401 X\r\n{lines}Content-Length: 0\r\n\r\n".encode()) as server:
        headers = send(server).headers
    assert headers["www-authenticate"] == "Basic, Bearer realm=x"
    assert headers["location"] == "/\xe9"


def test_pieces_are_whole_and_the_connection_is_kept() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2500\r\n\r\n" + b"z" * 2500
    with Server(answer, until=b"\r\n\r\n") as server, closing(client()) as one:
        for _ in range(2):
            with closing(one.send(HttpRequest("GET", server.url), Timeouts(5, 5, 5, 5))) as incoming:
                assert [len(piece) for piece in incoming.pieces(1000)] == [1000, 1000, 500]
        assert server.connections == 1


def test_a_long_answer_is_not_read_to_its_end() -> None:
    body = b"z" * 5000
    with Server(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + body) as server:
        assert send(server).body == body[:100]


def test_one_who_does_not_read_is_not_waited_for_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, closing(client()) as sender:
        chunks = (b"y" * (1 << 20) for _ in range(100))
        begun = time.monotonic()
        with failing(TimeoutError):
            send_by(sender, f"http://127.0.0.1:{deaf.getsockname()[1]}/", chunks, write=0.2, read=30)
    assert time.monotonic() - begun < 5


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}/"
    with closing(client()) as sender, failing(ConnectionRefusedError, ConnectError):
        send_by(sender, url)


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server to be used as a proxy; the environment names none yet."""
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme.upper()}_PROXY", raising=False)
    with Server() as proxy:
        yield proxy


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_a_proxy_is_used_unless_it_is_between_us_and_ourselves(
    proxied: Server, monkeypatch: pytest.MonkeyPatch, variable: str, *, direct: bool
) -> None:
    with Server() as server:
        monkeypatch.setenv(variable, f"http://me:pw%3D@{proxied.place}")
        with closing(client("localhost" if direct else "registry.example")) as sender:
            for _ in range(2):
                send_by(sender, server.url)
        asked, other = (server, proxied) if direct else (proxied, server)
        assert (asked.connections, other.connections) == (1, 0)
        target = server.url.removeprefix(f"http://{server.place}") if direct else server.url
        login = b"Proxy-Authorization: Basic bWU6cHc9\r\n"
        for heard in asked.heard:
            assert heard.startswith(f"PATCH {target} HTTP/1.1".encode())
            assert (login in heard) is not direct


@pytest.mark.parametrize("named", ["127.0.0.1", "127.0.0.1:{port}", "*"])
def test_no_proxy_names_whom_to_speak_to_directly(
    proxied: Server, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    with Server() as server:
        monkeypatch.setenv("no_proxy", f"other.example, {named.format(port=server.place.partition(':')[2])}")
        with closing(client_for(proxied, monkeypatch)) as sender:
            send_by(sender, server.url)
        assert (server.connections, proxied.connections) == (1, 0)


def client_for(proxy: Server, monkeypatch: pytest.MonkeyPatch) -> HttpClient:
    monkeypatch.setenv("all_proxy", proxy.place)
    return client("registry.example")


def test_a_proxy_that_refuses_is_told_and_not_asked_again(
    proxied: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    proxied.until = b"\r\n\r\n"
    with closing(client_for(proxied, monkeypatch)) as sender, pytest.raises(ConnectError) as caught:
        send_by(sender, "https://registry.example/v2/")
    assert proxied.heard[0].startswith(b"CONNECT registry.example:443 HTTP/1.")
    error = unreachable(caught.value, "registry.example")
    assert not isinstance(error, TransientError)
    assert str(error) == (
        "registry.example could not be reached: Tunnel connection failed: 407 Proxy Authentication Required."
    )


@pytest.mark.parametrize(
    "piece",
    [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"a"],
    ids=["103", "100", "one-byte"],
)
def test_a_head_without_an_end_is_not_waited_for(piece: bytes) -> None:
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            while not stop.wait(0.02):
                theirs.sendall(piece)

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    ours.settimeout(0.3)
    response, begun = TimedResponse(ours, method="GET"), time.monotonic()
    with pytest.raises(UnfinishedError):
        response.begin()
    assert time.monotonic() - begun < 2
    stop.set()
    thread.join()
    response.close()
    ours.close()
    theirs.close()


def test_a_head_has_a_largest_size() -> None:
    ours, theirs = socket.socketpair()
    head = b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 60_000 + b"\r\n") * 40

    def send() -> None:
        with suppress(OSError):
            theirs.sendall(head)
        theirs.close()

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    ours.settimeout(5)
    response = TimedResponse(ours, method="GET")
    with pytest.raises(UnfinishedError, match="no end"):
        response.begin()
    response.close()
    ours.close()
    thread.join()
