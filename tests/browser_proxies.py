"""What stands between a pod and a browser, and beside it: proxies, and other people's pages."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import re
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PAGE = b"<!doctype html><title>Another page</title>"


def certificate(folder: Path) -> ssl.SSLContext:
    """Return what a server of https needs; its certificate is nobody's."""
    name = folder / "front.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-subj", "/CN=front", "-days", "2", "-keyout", str(name), "-out", str(folder / "front.crt")]
    subprocess.run(argv, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "front.crt", name)
    return context


@contextlib.contextmanager
def front(
    to: tuple[str, int], tls: ssl.SSLContext | None = None, *, says: str | None = None
) -> Iterator[int]:
    """Pass requests on, without TLS; yields the port.

    Args:
        to: Address and port of the pod.
        tls: With it, browsers come by https.
        says: What it puts into X-Forwarded-Proto.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def serve(caller: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await _pass_on(caller, back, to, says)
        back.close()

    async def end() -> None:
        server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    starting = asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def stranger(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve somebody else's page, whatever is asked for; yields the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(_PAGE)))
            self.end_headers()
            self.wfile.write(_PAGE)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


async def _pass_on(
    caller: asyncio.StreamReader, back: asyncio.StreamWriter, to: tuple[str, int], says: str | None
) -> None:
    """Pass one request on, with its head changed, and what follows as it is: a body, or a websocket."""
    head = await caller.read(1)
    if not head.isalpha():  # a browser tries https at a port of http: a real proxy answers, and hangs up
        back.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        return
    head += await caller.readuntil(b"\r\n\r\n")
    first, _, rest = head.partition(b"\r\n")
    if not re.search(rb"(?i)\r\nupgrade: websocket", head):
        rest = re.sub(rb"(?im)^connection: [^\r]*", b"Connection: close", rest, count=1)
    if says:
        first += b"\r\nX-Forwarded-Proto: " + says.encode()
    pod, on = await asyncio.open_connection(*to)
    on.write(first + b"\r\n" + rest)
    await asyncio.wait(
        {asyncio.create_task(_copy(caller, on)), asyncio.create_task(_copy(pod, back))},
        return_when=asyncio.FIRST_COMPLETED,
    )
    on.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(65536):
            target.write(piece)
            await target.drain()
