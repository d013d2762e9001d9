"""Servers that speak no HTTP, or lie in their headers: each gives one sentence, never a mistake of ours."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from pod.downloads import part_journal
from pod.downloads.download import Download
from pod.downloads.probe import DownloadTarget
from pod.downloads.progress import Progress
from pod.errors import PodError
from pod.net.http import Limits, TransientError
from pod.net.hubs import Request
from pod.net.transfer_policy import TransferPolicy
from pod.resolve import safetensors_header
from pod.resolve.hub_client import HubClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "
PART = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 8\r\nContent-Range: bytes 0-7/"
ANSWERS = {
    "nothing": b"",
    "noise": b"\0\xff" * 100,
    "a status of other digits": "HTTP/1.1 ²²² x\r\n\r\n".encode("latin-1"),
    "a version to come": b"HTTP/9 200 OK\r\n\r\n",
    "a length of 6000 digits": OK + b"Content-Length: " + b"9" * 6000 + b"\r\n\r\nx",
    "a length below nothing": OK + b"Content-Length: -5\r\n\r\nx",
    "a length of other digits": OK + "Content-Length: ²\r\n\r\nx".encode("latin-1"),
    "no length of a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    "a chunk of 6000 digits": OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 6000 + b"\r\nx",
    "200 headers": OK + b"X: y\r\n" * 200 + b"\r\n",
    "a header of 100 kB": OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    "moved to a bracket": MOVED + b"http://[::1\r\n\r\n",
    "moved to noise": MOVED + b"http://\xff\xfe/\r\n\r\n",
    "moved to a far port": MOVED + b"http://a:99999999/\r\n\r\n",
    "moved nowhere": MOVED + b"//\r\n\r\n",
    "moved to an escape": MOVED + b"http://\x1b[31mx/\r\n\r\n",
    "a whole of 6000 digits": PART + b"9" * 6000 + b"\r\n\r\n12345678",
    "a whole of 2**64": PART + b"18446744073709551616\r\n\r\n12345678",
    "a whole of an exabyte": PART + b"999999999999999999\r\n\r\n12345678",
    "a name with a number of 5000 digits": OK
    + b"Content-Length: 3\r\nContent-Disposition: attachment; filename*"
    + b"9" * 3900
    + b"=x\r\n\r\nabc",
    "an unknown status": b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n",
    "an escape for a type": OK + b"Content-Type: text/html\x1b[31m\r\nContent-Length: 10\r\n\r\n0123456789",
}
POLICY = TransferPolicy(tries=1, backoff=0.01, limits=Limits(1, 1))


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], str]]:
    """Answer every request with the same bytes; returns the address."""
    said = [b""]
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def work() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(said[0])

        thread = threading.Thread(target=work)
        thread.start()

        def start(answer: bytes) -> str:
            said[0] = answer
            return f"http://127.0.0.1:{listening.getsockname()[1]}/a.safetensors"

        yield start
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_is_a_mistake_of_ours(serve: Callable[[bytes], str], tmp_path: Path, name: str) -> None:
    url = serve(ANSWERS[name])
    request = Request(url, url)
    goal = DownloadTarget("a.safetensors", tmp_path / "a.part", request, f"sha256:{'a' * 64}", 10)
    asker = HubClient(POLICY, threading.Event())

    def room(need: int) -> None:
        if need > 1 << 30:
            raise OSError(28, "No space left on device")

    for ask in (
        lambda: safetensors_header.fetch(request, POLICY.limits),
        lambda: asker.name(request, lambda _: None),
        lambda: asker.json(request, lambda _: None),
        lambda: Download(goal, POLICY, Progress("m", "a"), room).run(),
    ):
        sentence = ""
        try:
            ask()
        except (PodError, TransientError, OSError) as error:
            sentence = str(error)
        assert sentence.isprintable()
        assert len(sentence) < 600
    part_journal.remove(goal.part)
