"""A wire that is cut: forwards TCP to a real server, and resets connections that carry much."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Self

_BLOCK = 64 << 10


class TcpCutter:
    """Forwards to `target` (host:port); the next `cuts` connections end after `after` bytes sent to it."""

    def __init__(self, target: str, *, cuts: int, after: int) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._after = after
        self._lock = threading.Lock()
        self.cuts = cuts
        self.carried = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(self._target)
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                threading.Thread(target=self._down, args=(client, server), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        carried = 0
        with contextlib.suppress(OSError), client, server:
            while block := client.recv(_BLOCK):
                server.sendall(block)
                carried += len(block)
                with self._lock:
                    self.carried += len(block)
                    cut = carried > self._after and self.cuts > 0
                    self.cuts -= cut
                if cut:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
            server.shutdown(socket.SHUT_WR)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := server.recv(_BLOCK):
                client.sendall(block)
