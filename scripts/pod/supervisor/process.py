"""One life of ComfyUI, of what takes jobs beside it, or of a server: start to end, and what it prints."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time

from pod.util import child_processes, secret_variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NAME = "comfyui"
SERVER = "server"
INTERRUPT_SECONDS = 3.0  # for the prompt in work, of the seconds that there are in all
_CHUNK = 65536
_DRAIN_SECONDS = 1.0


def now() -> float:
    """Seconds since the machine started, whatever happens to its clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ChildProcess:
    """A running program: `spawned` is a time by `now`. Raises OSError where it cannot be started.

    It gets a process group of its own, so that Ctrl-C at a terminal reaches it through its supervisor alone;
    the group is noted as `name` in the folder `run` while it lives. It is killed when its supervisor is:
    start it from a thread that stays.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], name: str, run: str | None) -> None:
        self._name = name
        self._run = run
        self.spawned = now()
        self.over = False
        self._output, output = os.pipe()
        try:
            self._process = subprocess.Popen(
                child_processes.tied(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                # Lines are wanted when they are printed.
                env={"PYTHONUNBUFFERED": "1", **child_processes.marked(environ)},
            )
        finally:
            os.close(output)
        if run is not None:
            child_processes.note(run, name, self._process.pid)
        self._copier: threading.Thread | None = None

    @property
    def group(self) -> int:
        """Its process group."""
        return self._process.pid

    def forward_output(self, *takers: Callable[[bytes], None]) -> None:
        """Give all that it prints to each of the takers, in a thread."""
        self._copier = threading.Thread(target=self._copy, args=takers, daemon=True)
        self._copier.start()

    def _copy(self, *takers: Callable[[bytes], None]) -> None:
        copy(self._output, *takers)
        os.close(self._output)

    def wait(self) -> int:
        """Wait for its end, and until its output is passed on; returns the exit code, or minus the signal."""
        status = self._process.wait()
        self.over = True
        if self._copier:
            self._copier.join(_DRAIN_SECONDS)  # what it left behind may hold the pipe open for ever
        self.kill()
        if self._run is not None:
            child_processes.forget(self._run, self._name)
        return status

    def terminate(self) -> None:
        """Ask it to end, and nothing that it has started."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill it, and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class ComfyProcess(ChildProcess):
    """A running ComfyUI: `ready` is when it served first, by `now`."""

    def __init__(self, argv: Sequence[str], run: str | None = None) -> None:
        super().__init__(argv, secret_variables.of_comfyui(os.environ), NAME, run)
        self.ready: float | None = None

    def end(self, seconds: float) -> None:
        """Have it end within so many seconds: the prompt interrupted, then a clean stop, then by force."""
        from pod.supervisor.interrupt import interrupt  # noqa: PLC0415 - its imports are not waited for at the start

        deadline = time.monotonic() + seconds
        if self.ready is not None:
            interrupt(min(INTERRUPT_SECONDS, seconds / 2))
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()


class ServerProcess(ChildProcess):
    """A running server of a model: `ready` is when it served first, by `now`."""

    def __init__(self, argv: Sequence[str], run: str | None = None) -> None:
        super().__init__(argv, secret_variables.of_server(os.environ), SERVER, run)
        self.ready: float | None = None

    def end(self, seconds: float) -> None:
        """Have it end within so many seconds: it answers what it can by itself, then by force."""
        self.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()


def copy(source: int, *takers: Callable[[bytes], None]) -> None:
    """Pass on what a file descriptor gives, as soon as it comes, until its end."""
    while data := os.read(source, _CHUNK):
        for take in takers:
            take(data)


class FdWriter:
    """A file descriptor to write to. A broken one is dropped: a writer must not block on it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._broken = False

    def __call__(self, data: bytes) -> None:
        """Write all of it."""
        try:
            while data and not self._broken:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self._broken = True
