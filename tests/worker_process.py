"""The worker as a process of its own, with RunPod's real SDK, on a contract ComfyUI and a fake endpoint."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import runpod_sdk
from images import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers.runpod_endpoint import Endpoint


@dataclass
class Started:
    """A worker's process, and where its log is."""

    process: subprocess.Popen[bytes]
    log: Path

    def use(self, port: int) -> None:
        """Tell it at which port ComfyUI is, as start.sh does."""
        self.log.with_name("comfyui.args").write_text(f"--listen=127.0.0.1\0--port={port}\0")

    def note_end_of_comfyui(self) -> None:
        """Tell it that ComfyUI was killed, as the supervisor does."""
        path = self.log.with_name("boot.json")
        notes: Any = json.loads(path.read_text()) if path.exists() else {"schema": 1, "restarts": []}
        notes["restarts"].append({"ended": time.time(), "why": "exit code 137, SIGKILL"})
        path.write_text(json.dumps(notes))

    def said(self) -> str:
        """Return what it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def started(endpoint: Endpoint, folder: Path, port: int, **variables: str) -> Iterator[Started]:
    """Run a worker for an endpoint, on the ComfyUI at a port, until the block ends."""
    folder.mkdir(exist_ok=True)
    environment = runpod_sdk.environment(
        PODKILN_RUN=str(folder), PODKILN_LOCAL=str(folder), **endpoint.environment, **variables
    )
    log = folder / "worker.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts"), "worker"],
            env=environment,
            stdout=stream,
            stderr=stream,
            cwd=folder,
        )
    running = Started(process, log)
    running.use(port)
    try:
        yield running
    finally:
        process.kill()
        process.wait()
