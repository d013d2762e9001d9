"""Lets a program without a network reach a server here: a port on its own loopback, led to a Unix socket.

    nsenter --net=/proc/PID/ns/net python tests/servers/loopback_relay.py SOCKET

Runs in the network namespace of that program; Unix sockets do not care for those. Prints its port.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PIECE = 1 << 20
_SIOCSIFFLAGS = 0x8914  # netdevice(7)
_IFF_UP = 1


@contextlib.contextmanager
def serve(pid: int, path: Path) -> Iterator[int]:
    """Run a relay in the network namespace of a process; yield its port there."""
    argv = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, __file__, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def main(path: str) -> None:
    """Relay until ended."""
    with socket.socket() as listener:
        fcntl.ioctl(listener, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            client, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(path)
            for ends in ((client, server), (server, client)):
                threading.Thread(target=_lead, args=ends, daemon=True).start()


def _lead(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):  # one of both has gone
        while data := source.recv(_PIECE):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(*sys.argv[1:])
