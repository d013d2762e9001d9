"""One life of ComfyUI: from its start to its end, with what it prints on the way."""

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
    from collections.abc import Callable, Sequence

NAME = "comfyui"
INTERRUPT_SECONDS = 3.0  # for the prompt in work, of the seconds that there are in all
_CHUNK = 65536
_DRAIN_SECONDS = 1.0


def now() -> float:
    """Seconds since the machine started, whatever happens to its clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ComfyProcess:
    """A running ComfyUI: `spawned` and `ready` are times by `now`. Raises OSError where it cannot be started.

    It gets a process group of its own, so that Ctrl-C at a terminal reaches it through its supervisor alone;
    the group is noted in the folder `run` while it lives. It is killed when its supervisor is: start it from
    the main thread, which stays.
    """

    def __init__(self, argv: Sequence[str], run: str | None = None) -> None:
        self._run = run
        self.spawned = now()
        self.ready: float | None = None
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
                env={
                    "PYTHONUNBUFFERED": "1",
                    **child_processes.marked(secret_variables.without_access(os.environ)),
                },
            )
        finally:
            os.close(output)
        if run is not None:
            child_processes.note(run, NAME, self._process.pid)
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
        self._kill_group()
        if self._run is not None:
            child_processes.forget(self._run, NAME)
        return status

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
            self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


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
