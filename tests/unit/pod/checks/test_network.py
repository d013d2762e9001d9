"""DNS and the clock."""

from __future__ import annotations

import email.utils
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from pod.checks import network

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_790_000_000.0
CLOCKS: list[tuple[float | None, float | None, str | None]] = [
    (NOW, None, None),
    (NOW + 299, None, None),
    (
        NOW + 7200,
        None,
        "the clock of this machine is 2 hours behind: certificates and tokens will be refused",
    ),
    (NOW - 600, None, "10 minutes ahead"),
    (NOW - 40 * 86400, None, "40 days ahead"),
    (None, NOW - 86400, None),
    (None, NOW + 3 * 86400, "the clock of this machine is 3 days before this image was made"),
    (NOW, NOW + 3 * 86400, None),  # an image whose time is wrong says nothing against a server
    (None, None, None),
]


@pytest.mark.parametrize(("theirs", "made", "says"), CLOCKS)
def test_the_clock(theirs: float | None, made: float | None, says: str | None) -> None:
    found = network.clock(theirs, NOW, made)
    assert [finding.check for finding in found] == ([] if says is None else ["clock"])
    assert says is None or says in found[0].message


class Hub(BaseHTTPRequestHandler):
    off = 0.0

    def do_GET(self) -> None:
        self.send_response_only(404)
        self.send_header("Date", email.utils.formatdate(time.time() + self.off, usegmt=True))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("off", "expected"), [(0.0, []), (-90000.0, ["clock"])])
def test_a_servers_date_tells_the_time(
    hub: str, monkeypatch: pytest.MonkeyPatch, off: float, expected: list[str]
) -> None:
    monkeypatch.setattr(Hub, "off", off)
    assert [finding.check for finding in network.examine([hub], None)] == expected


def test_nothing_to_ask_is_nothing_found() -> None:
    assert network.examine([], None) == []


def test_a_name_that_nobody_knows_is_said(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def unknown(host: str, *rest: Any, **more: Any) -> Any:
        if host == "hub.invalid":
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    (finding,) = network.examine(["https://hub.invalid/x", "https://hub.invalid/y", hub], None)
    assert finding.message.startswith(
        "DNS does not answer for hub.invalid (Temporary failure in name resolution): models cannot be fetched"
    )


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "LIMIT", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
    begun = time.monotonic()
    (finding,) = network.examine(["https://slow.invalid"], None)
    assert time.monotonic() - begun < 2
    assert "(no answer within 0.2 s)" in finding.message


def test_a_server_that_does_not_answer_tells_no_time() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert network.examine([url], None) == []
