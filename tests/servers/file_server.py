"""Where the weights of a benchmark come from: a server that sends files as fast as the machine can.

    tests/servers/file_server.py FOLDER

A process of its own, so that its CPU time counts apart; the kernel copies the bytes (sendfile), Python does
not see them. Any path gives the file that its last part names: a hub's /org/repo/resolve/main/FILE as well as
a URL that was made up to be new to a cache. Prints its port; GET /_sent tells the bytes sent, by file.

GET /_hold/BYTES takes so much memory, and gives it back when the first file is asked for: whoever writes that
file then finds memory that is there already. Where a host gives its virtual machines memory page by page, at
the first touch, a registry otherwise takes twice as much processor time or half, as its luck has it.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SENT, _HOLD = "/_sent", "/_hold/"
_PAGE = 4096
_AT_ONCE = 4 << 20


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.sent: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.held: mmap.mmap | None = None

    def hold(self, count: int) -> None:
        """Take so many bytes of memory."""
        self.release()
        held = mmap.mmap(-1, count)
        held.madvise(mmap.MADV_HUGEPAGE)  # given back in no time
        for offset in range(0, count, _PAGE):
            held[offset] = 1
        self.held = held

    def release(self) -> None:
        """Give it back."""
        with self.lock:
            held, self.held = self.held, None
        if held:
            held.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def _answer(self, *, with_body: bool) -> None:
        if self.path == _SENT:
            with self.server.lock:
                self._small(200, json.dumps(self.server.sent).encode())
            return
        if self.path.startswith(_HOLD):
            self.server.hold(int(self.path.removeprefix(_HOLD)))
            self._small(200, b"held\n")
            return
        name = self.path.partition("?")[0].rpartition("/")[2]
        try:
            file = (self.server.folder / name).open("rb")
        except OSError:
            self._small(404, b"no such file\n")
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            start = min(int(asked[1]), size) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size - start))
            self.end_headers()
            if with_body:
                self.server.release()
                self._send(file.fileno(), name, start, size)

    def _small(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, file: int, name: str, start: int, size: int) -> None:
        self.wfile.flush()
        while start < size:
            # Counted before it goes: whoever has the last byte and asks then is told of it.
            most = min(_AT_ONCE, size - start)
            self._count(name, most)
            try:
                count = os.sendfile(self.connection.fileno(), file, start, most)
            except OSError:  # the client has gone
                count = 0
            self._count(name, count - most)
            if not count:
                self.close_connection = True
                return
            start += count

    def _count(self, name: str, count: int) -> None:
        with self.server.lock:
            self.server.sent[name] += count


class Source:
    """The server, seen from a benchmark."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def hold(self, count: int) -> None:
        """Leave so many bytes of memory free for the client's page cache."""
        with urllib.request.urlopen(f"{self.url}{_HOLD}{count}", timeout=60) as answer:
            answer.read()

    def sent(self) -> dict[str, int]:
        """Return the bytes sent so far, by file."""
        with urllib.request.urlopen(self.url + _SENT, timeout=30) as answer:
            return dict(json.load(answer))


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Source]:
    """Run the server for a folder."""
    argv = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Source(int(process.stdout.readline()))
        finally:
            process.terminate()


def main(folder: str) -> None:
    """Serve until ended."""
    server = _Server(Path(folder))
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
