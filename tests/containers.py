"""Containers for tests: started detached, asked over HTTP and `docker exec`, and always removed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

PORT = 8188
_PATIENCE = 60.0


def docker(
    *arguments: str, check: bool = True, host: str | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the docker client; `host` is another engine's DOCKER_HOST."""
    environment = {**os.environ, "DOCKER_HOST": host} if host else None
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=False, env=environment, input=stdin
    )
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done


def gateway() -> str:
    """Return this machine's address as containers on the default bridge see it."""
    config = json.loads(docker("network", "inspect", "bridge").stdout)[0]["IPAM"]["Config"]
    return str(next(row["Gateway"] for row in config if "." in row["Gateway"]))


class Container:
    """One detached container. Use it as a context manager: leaving removes it, however it ended.

    `mounts` maps paths here to paths there, read-only ones ending in ":ro".
    """

    def __init__(
        self,
        image: str,
        *command: str,
        env: Mapping[str, str] | None = None,
        mounts: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        host: str | None = None,
    ) -> None:
        self.name = f"podkiln-test-{uuid.uuid4().hex[:12]}"
        self._host = host
        self._address: str | None = None
        variables = [f"--env={key}={value}" for key, value in (env or {}).items()]
        volumes = [f"--volume={here}:{there}" for here, there in (mounts or {}).items()]
        self._argv = ["run", "--detach", "--name", self.name, *variables, *volumes, *options, image, *command]

    def __enter__(self) -> Self:
        try:
            self._docker(*self._argv)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove it, with its anonymous volumes."""
        self._docker("rm", "--force", "--volumes", self.name, check=False)

    def _docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return docker(*arguments, check=check, host=self._host)

    def exec(
        self, *command: str, env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        variables = [f"--env={key}={value}" for key, value in (env or {}).items()]
        return self._docker("exec", *variables, self.name, *command, check=check)

    def read(self, path: str) -> str:
        """Return the text of a file in it."""
        return self.exec("cat", path).stdout

    def logs(self) -> str:
        """Return all that it has printed, on either stream."""
        done = self._docker("logs", self.name)
        return done.stdout + done.stderr

    def inspect(self) -> dict[str, Any]:
        """Return what the engine knows of it."""
        return dict(json.loads(self._docker("inspect", self.name).stdout)[0])

    def state(self) -> dict[str, Any]:
        """Return the engine's State of it: Running, ExitCode, OOMKilled, Health."""
        return dict(self.inspect()["State"])

    def processes(self) -> dict[int, str]:
        """Return its processes, as the engine sees them: from process id on the host to command line."""
        _, *rows = self._docker("top", self.name, "-eo", "pid,args").stdout.splitlines()
        return {int(pid): args for pid, _, args in (row.strip().partition(" ") for row in rows)}

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal to its PID 1."""
        self._docker("kill", f"--signal={signal}", self.name)

    def stop(self, seconds: int = 10) -> float:
        """Stop it as `docker stop` does; returns how many seconds that took."""
        begun = time.monotonic()
        self._docker("stop", f"--time={seconds}", self.name)
        return time.monotonic() - begun

    def wait_exit(self, patience: float = _PATIENCE) -> int:
        """Wait for its end; returns the exit code."""
        self._until(lambda: not self.state()["Running"], "has not ended", patience)
        return int(self.state()["ExitCode"])

    def wait_log(self, text: str, patience: float = _PATIENCE) -> str:
        """Wait until its log holds a text; returns the log."""
        self._until(lambda: text in self.logs(), f"has not said {text!r}", patience)
        return self.logs()

    def wait_ready(self, patience: float = _PATIENCE) -> dict[str, Any]:
        """Wait until ComfyUI serves; returns /system_stats."""
        end, tries = time.monotonic() + patience, 0
        while True:
            with contextlib.suppress(OSError):
                return dict(self.get("/system_stats"))
            # The engine's client costs the processors that the pod boots on, so it is called now and then.
            if tries % 10 == 0:
                assert self.state()["Running"], f"{self.name} ended:\n{self.logs()}"
            tries += 1
            assert time.monotonic() < end, f"{self.name} does not serve:\n{self.logs()}"
            time.sleep(0.1)

    def get(self, path: str) -> Any:
        """Ask ComfyUI, and return its JSON."""
        with urllib.request.urlopen(f"http://{self.address}:{PORT}{path}", timeout=5) as answer:
            return json.load(answer)

    def post(self, path: str, value: object) -> tuple[int, Any]:
        """Send ComfyUI JSON; returns status and JSON."""
        request = urllib.request.Request(
            f"http://{self.address}:{PORT}{path}", json.dumps(value).encode(), method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.load(refused)

    @property
    def address(self) -> str:
        """Its address on the engine's bridge."""
        if not self._address:
            self._address = str(self.inspect()["NetworkSettings"]["IPAddress"])
        return self._address

    def _until(self, done: Any, what: str, patience: float) -> None:
        end = time.monotonic() + patience
        while not done():
            assert time.monotonic() < end, f"{self.name} {what} after {patience:.0f} s:\n{self.logs()}"
            time.sleep(0.2)
