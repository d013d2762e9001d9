"""The first engine's BuildKit as a buildx builder of its own, to build with beside any other engine."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# The engine's own way to its BuildKit: https://docs.docker.com/reference/api/engine/ (POST /grpc, hijacked).
_UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
_END = b"\r\n\r\n"


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """Make a builder of buildx's remote driver; yield its name."""
    context = json.loads(
        subprocess.run(["docker", "context", "inspect"], capture_output=True, check=True).stdout
    )
    engine = context[0]["Endpoints"]["docker"]["Host"].removeprefix("unix://")
    name = f"podkiln-test-{uuid.uuid4().hex[:8]}"
    # Not in pytest's directory: the paths of sockets must be short.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(folder) / "buildkit.sock")
        listener.bind(path)
        listener.listen()
        threading.Thread(target=_accept, args=(listener, engine), daemon=True).start()
        _buildx("create", "--name", name, "--driver", "remote", f"unix://{path}")
        try:
            yield name
        finally:
            _buildx("rm", "--force", name)


def _buildx(*arguments: str) -> None:
    subprocess.run(["docker", "buildx", *arguments], check=True, capture_output=True, env=dict(os.environ))


def _accept(listener: socket.socket, engine: str) -> None:
    with contextlib.suppress(OSError):  # the listener's end is ours
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_bridge, args=(client, engine), daemon=True).start()


def _bridge(client: socket.socket, engine: str) -> None:
    with client, socket.socket(socket.AF_UNIX) as server:
        server.connect(engine)
        server.sendall(_UPGRADE)
        answer = b""
        while _END not in answer:
            answer += server.recv(1)
        assert b" 101 " in answer, answer
        back = threading.Thread(target=_copy, args=(server, client), daemon=True)
        back.start()
        _copy(client, server)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
