"""What bench/fetch.py fetches from: a server that is slow on purpose, and costs next to no CPU itself.

    tests/servers/slow_hub.py FILE --size BYTES --count N --each BYTES [--delay 0.02] [--rate 50000000]

Each request is answered after `--delay` seconds, and a connection gets `--rate` bytes a second at most, by
sendfile and a token bucket. `/one/model.gguf` is the first `--size` bytes of FILE, and `/many/NNN.gguf` are
`--count` pieces of it, `--each` bytes long. Both are also repositories `bench/one` and `bench/many` of the
Hugging Face hub's API, as far as `hf download` asks. The first line of stdout is the port.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

BURST = 1 << 20  # bytes between two looks at the clock
COMMIT = "0" * 40
Piece = tuple[int, int]  # offset and length in FILE


@dataclass(frozen=True)
class Content:
    """The file, what of it has which name, and how slowly it is given out."""

    descriptor: int
    pieces: dict[str, Piece]
    delay: float
    rate: int

    def listing(self, repository: str) -> list[tuple[str, Piece]]:
        """Return the names below a repository, and what they stand for."""
        start = f"{repository}/"
        return [
            (name.removeprefix(start), piece) for name, piece in self.pieces.items() if name.startswith(start)
        ]


def answer(client: socket.socket, content: Content) -> None:
    """Serve one connection until the client has had enough."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * BURST)
    received = b""
    with contextlib.suppress(ConnectionError), client:
        while True:
            while b"\r\n\r\n" not in received:
                block = client.recv(65536)
                if not block:
                    return
                received += block
            head, _, received = received.partition(b"\r\n\r\n")
            time.sleep(content.delay)
            respond(client, content, head.decode("latin-1"))


def respond(client: socket.socket, content: Content, head: str) -> None:
    """Answer one request."""
    method, target, _ = head.split(" ", 2)
    path = target.partition("?")[0]
    name = re.sub(r"^/bench/(one|many)/resolve/[^/]+/", r"/\1/", path)
    if name.lstrip("/") in content.pieces:
        send_file(client, content, method, name.lstrip("/"), head)
        return
    known = re.fullmatch(r"/api/models/bench/(one|many)(/revision/[^/]+|/tree/[^/]+)?", path)
    value = (
        about(content, known[1], tree=(known[2] or "").startswith("/tree"))
        if known
        else {"error": "not found"}
    )
    body = json.dumps(value).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    send_head(client, "200 OK" if known else "404 Not Found", fields)
    if method != "HEAD":
        client.sendall(body)


def about(content: Content, repository: str, *, tree: bool) -> Any:
    """Return what the hub's API says of a repository, or of its files."""
    names = content.listing(repository)
    if tree:
        return [
            {"type": "file", "path": name, "size": size, "oid": f"{offset:040x}"}
            for name, (offset, size) in names
        ]
    siblings = [{"rfilename": name} for name, _ in names]
    return {"_id": "0", "id": f"bench/{repository}", "sha": COMMIT, "private": False, "siblings": siblings}


def send_file(client: socket.socket, content: Content, method: str, name: str, head: str) -> None:
    """Send a piece, or the range of it that was asked for."""
    offset, size = content.pieces[name]
    asked = re.search(r"\r\nrange: *bytes=(\d+)-(\d*)", head, re.IGNORECASE)
    first, last = (int(asked[1]), min(int(asked[2] or size - 1), size - 1)) if asked else (0, size - 1)
    fields = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(last - first + 1),
        "Accept-Ranges": "bytes",
        "ETag": f'"{offset:040x}"',
        "X-Repo-Commit": COMMIT,
    }
    if asked:
        fields["Content-Range"] = f"bytes {first}-{last}/{size}"
    send_head(client, "206 Partial Content" if asked else "200 OK", fields)
    if method != "HEAD":
        pour(client, content, offset + first, last - first + 1)


def send_head(client: socket.socket, status: str, fields: dict[str, str]) -> None:
    """Send the status line and the headers."""
    lines = [f"HTTP/1.1 {status}", *(f"{key}: {value}" for key, value in fields.items()), "", ""]
    client.sendall("\r\n".join(lines).encode())


def pour(client: socket.socket, content: Content, offset: int, size: int) -> None:
    """Send bytes of the file, never more than the rate allows since the beginning."""
    begun, sent = time.monotonic(), 0
    while sent < size:
        sent += os.sendfile(client.fileno(), content.descriptor, offset + sent, min(BURST, size - sent))
        ahead = sent / content.rate - (time.monotonic() - begun)
        if ahead > 0:
            time.sleep(ahead)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--each", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds")
    parser.add_argument("--rate", type=int, default=50_000_000, help="bytes a second")
    options = parser.parse_args()
    many = {f"many/{n:03}.gguf": (n * options.each, options.each) for n in range(options.count)}
    content = Content(
        os.open(options.file, os.O_RDONLY),
        {"one/model.gguf": (0, options.size), **many},
        options.delay,
        options.rate,
    )
    server = socket.create_server(("127.0.0.1", 0), backlog=256)
    sys.stdout.write(f"{server.getsockname()[1]}\n")
    sys.stdout.flush()
    while True:
        client, _ = server.accept()
        threading.Thread(target=answer, args=(client, content), daemon=True).start()


if __name__ == "__main__":
    main()
