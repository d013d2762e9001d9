"""A pod of the model's server, without a container: the supervisor that start.sh starts, and what it keeps.

In an image it is that image's podkiln; of a checkout it is laid out as in one, with the detection.json that
PODKILN_DETECTION names (podkiln.config.families.to_json).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers.hub import Hub
    from servers.runpod_endpoint import Endpoint

SCRIPTS = Path(__file__).parents[2] / "scripts"
IMAGE = Path("/opt/podkiln")
TOKEN = "a-token-of-the-tests"
NOBODY = "http://127.0.0.1:9"
PATIENCE = 300.0  # seconds for a start: importing torch takes half a minute on a slow machine
POOL = (os.cpu_count() or 1) + 4  # threads that asyncio.to_thread may have, each begun when it is needed
STOP_SECONDS = 9  # as in variants/server.yaml


@dataclass(frozen=True)
class Figures:
    """What a server takes: MiB, counts, and the paths of files that are its pod's."""

    resident: float
    open_files: int
    threads: int
    paths: frozenset[str]

    def grown(self, since: Figures, most_mib: float) -> str:
        """Say what there is more of than at another time, and how much that may be; raises AssertionError."""
        more = self.resident - since.resident
        said = (
            f"{since.resident:.0f} MiB before, {more:+.1f}; {since.open_files} files open, "
            f"{self.open_files - since.open_files:+d}; {since.threads} threads, "
            f"{self.threads - since.threads:+d}; files of the pod {len(self.paths) - len(since.paths):+d}"
        )
        assert more <= most_mib, said
        assert self.open_files <= since.open_files + 1, said
        assert self.threads <= since.threads + POOL, said
        assert self.paths <= since.paths, f"{said}: {sorted(self.paths - since.paths)[:5]}"
        return said


class Pod:
    """A pod, as long as the block lasts.

    Args:
        folder: Its volume, kept between pods, and its container, which is made new.
        hub: Where models are; None where none can be reached.
        variables: MODEL_ID, and what else it is told.
        endpoint: The endpoint whose queue it works for; None for HTTP.
    """

    def __init__(
        self, folder: Path, hub: Hub | None, variables: dict[str, str], endpoint: Endpoint | None = None
    ) -> None:
        self.volume, self._container = folder / "volume", folder / "container"
        shutil.rmtree(self._container, ignore_errors=True)
        self.run, temporary = self._container / "run", self._container / "tmp"
        for each in (self.run, temporary, self.volume):
            each.mkdir(parents=True, exist_ok=True)
        self.log = folder / "pod.log"
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._listens = endpoint is None
        root = root_of(folder)
        hubs = hub.url if hub else NOBODY
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RUNPOD_", "BUCKET_", "PODKILN_", "PYTHON", "HF_"))
        }
        self._environ = {
            **kept,
            **(endpoint.environment if endpoint else {}),
            "PODKILN_SERVE": "diffusers",
            "PODKILN_ROOT": str(root),
            "PODKILN_RUN": str(self.run),
            "PODKILN_LOCAL": str(self._container / "local"),
            "PODKILN_BAKED": str(folder / "baked"),
            "PODKILN_VOLUME": str(folder / "endpoint"),
            "WORKSPACE": str(self.volume),
            "TMPDIR": str(temporary),
            "HF_ENDPOINT": hubs,
            "CIVITAI_ENDPOINT": hubs,
            "PODKILN_FETCH_TRIES": "2",
            "OMP_NUM_THREADS": "1",  # two threads that wait for each other take longer over so little
            "SERVE_HOST": "127.0.0.1",
            "PORT": str(self._port),
            "API_TOKEN": TOKEN,
            **variables,
        }
        self._root = root

    def __enter__(self) -> Self:
        # What `decide` leaves behind: it looks at cards and mounts, which are not this pod's.
        told = {"port": self._port, "serve": "diffusers", "warnings": [], "reasons": []}
        (self.run / "decision.json").write_text(json.dumps(told))
        (self.run / "comfyui.args").write_text("")
        words: list[str | Path] = ["-I", "-S", self._root, "run", "0", str(STOP_SECONDS)]
        with self.log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, *words, sys.executable, "-I", self._root, "model"],
                env=self._environ,
                cwd=self._container,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        self.started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS + 10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise AssertionError(f"the pod did not stop when it was told to:\n{self.said()}") from None

    def said(self) -> str:
        """Return the pod's log."""
        return self.log.read_text(errors="replace")

    @property
    def server(self) -> int:
        """The process of the server; 0 where none runs."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.run / "processes/server").read_text().split()[0])
        return 0

    @property
    def over(self) -> bool:
        """Whether the pod has ended."""
        return self._process.poll() is not None

    def wait_end(self, seconds: float = 60.0) -> int:
        """Wait for the pod's end by itself; returns its exit code."""
        return self._process.wait(seconds)

    def wait_ready(self) -> float:
        """Wait until the model is loaded; returns the seconds since the pod began."""
        wait(lambda: self.over or self._status() == 200, "the server is not ready", self.said)
        assert not self.over, self.said()
        return time.monotonic() - self.started

    def _status(self) -> int:
        try:
            return self.ask("GET", "/ping")[0]
        except OSError:
            return 0

    def kill(self) -> int:
        """Kill the server with SIGKILL, and wait until the kernel has done it; returns its process."""
        wait(lambda: self.server > 1, "no server was started", self.said, 15.0)
        number = self.server
        os.kill(number, signal.SIGKILL)
        wait(lambda: self.server != number, "the supervisor has not seen the end", self.said, 15.0)
        return number

    def kill_all(self) -> None:
        """Kill the pod with SIGKILL: the supervisor, with which the kernel ends the server."""
        server = self.server
        self._process.kill()
        self._process.wait()
        wait(lambda: not server or not _runs(server), "the server outlives its supervisor", self.said, 15.0)

    def ask(self, method: str, path: str, body: Any = None, timeout: float = PATIENCE) -> tuple[int, Any]:
        """Return the status and the JSON of an answer. Raises OSError."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.loads(refused.read() or b"null")
        except (http.client.HTTPException, ValueError) as cut:
            raise ConnectionError(f"the answer was cut off: {cut!r}") from None

    @contextlib.contextmanager
    def followed(self, body: Any) -> Iterator[Iterator[tuple[str, Any]]]:
        """Ask /generate for events; yields an iterator of their kinds and data. Raises OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(self.url).port or 0, timeout=PATIENCE)
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Authorization": f"Bearer {TOKEN}",
        }
        try:
            connection.request("POST", "/generate", json.dumps(body), headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            yield _events(answer)
        except http.client.HTTPException as cut:
            raise ConnectionError(f"the answer was cut off: {cut!r}") from None
        finally:
            connection.close()

    def figures(self) -> Figures:
        """Return what the server takes."""
        place = Path(f"/proc/{self.server}")
        fields = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        roots = (self._container, self.volume)
        paths = {
            str(path)
            for root in roots
            for path in root.rglob("*")
            if path.is_file() and path.suffix != ".log"
        }
        return Figures(
            int(fields["VmRSS"].split()[0]) / 1024,
            len(list((place / "fd").iterdir())),
            int(fields["Threads"]),
            frozenset(paths),
        )


def wait(
    true: Callable[[], Any], problem: str, said: Callable[[], str] = str, seconds: float = PATIENCE
) -> None:
    """Wait until something is so. Raises AssertionError."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{problem} after {seconds:.0f} s\n{said()}"
        time.sleep(0.02)


def root_of(folder: Path) -> Path:
    """Return podkiln as it lies in an image."""
    if not (SCRIPTS / "pod").is_dir():
        return IMAGE
    named = os.environ.get("PODKILN_DETECTION", "")
    if not Path(named).is_file():
        raise SystemExit("set PODKILN_DETECTION to a detection.json (podkiln.config.families.to_json)")
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name in ("comfy", "pod", "server", "worker", "__main__.py"):
        (root / name).symlink_to(SCRIPTS / name)
    shutil.copy(named, root / "detection.json")
    return root


def _runs(process: int) -> bool:
    """Tell whether a process runs: one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def _events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    kind = ""
    while line := answer.readline():
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)
