"""Real registries for tests: Debian's docker-registry, each with its own port and directory."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_START_SECONDS = 20
_READ = re.compile(r'"GET /v2/\S+/blobs/(sha256:[0-9a-f]{64}) HTTP/1\.1" 20[06] ')
HTPASSWD = "me:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n"  # bcrypt of s3cret


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serve(directory: Path, *, htpasswd: str = "", host: str = "", network_of: str = "") -> Iterator[str]:
    """Run a registry and yield its host:port; its storage is in `directory`.

    `network_of`: the id of a process in whose network namespace it runs, on the address `host`.
    """
    assert shutil.which("docker-registry"), (
        "docker-registry is missing: scripts/host/ensure_engine.sh --with-tests"
    )
    directory.mkdir(parents=True, exist_ok=True)
    host = host or f"127.0.0.1:{free_port()}"
    inside = ["nsenter", "--net", "--target", network_of] if network_of else []
    if inside:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": host, "secret": "for-tests-only"},
    }
    if htpasswd:
        (directory / "htpasswd").write_text(htpasswd)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*inside, "docker-registry", "serve", str(directory / "config.yml")], stdout=log, stderr=log
        )
        try:
            _wait(process, host, directory / "log", inside)
            yield host
        finally:
            process.terminate()
            process.wait(_START_SECONDS)


def blobs_read(directory: Path) -> list[str]:
    """Return the digests of the blobs that a registry in this folder has given away, by its access log."""
    return _READ.findall((directory / "log").read_text())


def _wait(process: subprocess.Popen[bytes], host: str, log: Path, inside: Sequence[str]) -> None:
    """Wait until it takes connections where it runs: outside, another one may have its address."""
    address, _, port = host.rpartition(":")
    connect = f"import socket; socket.create_connection(({address!r}, {port}), 1).close()"
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if not subprocess.run(
            [*inside, sys.executable, "-ISc", connect], capture_output=True, check=False
        ).returncode:
            return
        time.sleep(0.05)
    raise AssertionError(f"docker-registry did not start:\n{log.read_text()}")
