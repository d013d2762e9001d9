"""A second Docker Engine for tests, with the storage that the first one does not have."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_SECONDS = 60


@contextlib.contextmanager
def serve(*, containerd: bool) -> Iterator[str]:
    """Run an engine with containerd's or with overlay2's image storage; yield its DOCKER_HOST.

    It runs in a network namespace of its own: an engine that is told to have no bridge deletes docker0, which
    would be the first engine's. So it has no network; run containers in it with `--network none`.
    """
    # Not in pytest's directory: the paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "daemon.json").write_text(
            json.dumps({"features": {"containerd-snapshotter": containerd}})
        )
        own = f"podkiln-{uuid.uuid4().hex[:8]}"
        host = f"unix://{directory}/docker.sock"
        argv = [
            "unshare",
            "--net",
            "dockerd",
            "--config-file",
            f"{directory}/daemon.json",
            "--data-root",
            f"{directory}/data",
        ]
        argv += ["--exec-root", f"{directory}/exec", "--pidfile", f"{directory}/pid", "--host", host]
        argv += [
            "--bridge",
            "none",
            "--iptables=false",
            # Where both find the system's containerd, they must not see each other's images.
            f"--containerd-namespace={own}",
            f"--containerd-plugins-namespace={own}-plugins",
            *([] if containerd else ["--storage-driver", "overlay2"]),
        ]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log)
            try:
                _wait(process, host, directory / "log")
                yield host
            finally:
                process.terminate()
                process.wait(_START_SECONDS)


def _wait(process: subprocess.Popen[bytes], host: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    env = {**os.environ, "DOCKER_HOST": host}
    while process.poll() is None and time.monotonic() < deadline:
        if subprocess.run(["docker", "version"], env=env, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.2)
    process.kill()
    raise AssertionError(f"dockerd did not start:\n{log.read_text()[-3000:]}")
