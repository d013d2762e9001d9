"""What takes jobs for ComfyUI: started beside it, started again when it crashes, and ended before it.

Where it ends by itself for good, the pod is to stop with its exit code: a platform starts another one then.
SIGTERM reaches it first. A job may end by itself for some seconds, and is failed with that reason after them
(worker/termination.py); ComfyUI is still needed for that. One that has no job gets less time: the runpod SDK
ends when the platform answers its question for a job, which may be after 90 s.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from pod.errors import ARGUMENTS_REFUSED, SETTING_MALFORMED, UNFIT
from pod.supervisor import exit_status
from pod.supervisor.process import ChildProcess, now
from pod.util import restart, secret_variables, serving, untrusted_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pod.supervisor.boot_timeline import Timeline

NAME = "worker"
GRACE = 8.5  # seconds: those of worker/termination.py, and half a one for the answers to be sent
IDLE_GRACE = 3.0  # for one without a job: the answer of its last one may be on its way
_PAUSE = 0.05
_AFTER_KILL = 1.0
_LARGEST = 1 << 20
# Ends that another start would not change: it did what it was told, or said what is wrong with the image.
_FINAL = (0, ARGUMENTS_REFUSED, UNFIT, SETTING_MALFORMED)
_COMMANDS = {serving.RUNPOD: "worker", serving.HTTP: "serve"}


def command(python: str, environ: Mapping[str, str]) -> list[str] | None:
    """Return what takes jobs, for an image's Python; None where none can come."""
    way = serving.way(environ)
    if way is None or (way == serving.RUNPOD and not environ.get(serving.ENDPOINT)):
        return None
    name = _COMMANDS.get(way, way)
    return [python, "-I", environ.get("PODKILN_ROOT") or "/opt/podkiln", name]


class JobWorker:
    """Keeps the process that takes jobs, in a thread of its own.

    Args:
        argv: Its command line.
        environ: Its variables.
        takers: What gets all that it prints.
        say: Puts a sentence into the log.
        notes: Where its starts and ends are noted.
        over: Told the last sentence and the exit code, when it has ended for good by itself.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        takers: Sequence[Callable[[bytes], None]],
        say: Callable[[str], None],
        notes: Timeline,
        over: Callable[[str, int], None],
    ) -> None:
        self._argv = argv
        self._environ = environ
        self._takers = takers
        self._say = say
        self._notes = notes
        self._over = over
        self._run = environ.get("PODKILN_RUN") or "/run/podkiln"
        self._jobs = Path(environ.get("PODKILN_LOCAL") or "/var/lib/podkiln") / "jobs.json"
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._process: ChildProcess | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def begin(self) -> None:
        """Start it."""
        self._thread.start()

    def stop(self) -> None:
        """Have it end within GRACE, and wait for that."""
        with self._turn:
            told = self._stopping.is_set()
            self._stopping.set()
            process = self._process
        if process is None or process.over:
            return
        if not told:
            process.terminate()
        begun, busy = time.monotonic(), False
        while not process.over:
            busy = busy or self._has_jobs()
            if time.monotonic() - begun > (GRACE if busy else IDLE_GRACE):
                process.kill()
                self._thread.join(_AFTER_KILL)
                return
            time.sleep(_PAUSE)

    def _has_jobs(self) -> bool:
        """Tell whether a job is open, by what the worker notes (worker/job_file.py)."""
        try:
            found = json.loads(untrusted_files.read_plain(self._jobs, _LARGEST))
            return bool(found["jobs"])
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def _keep(self) -> None:
        restarts = restart.Restarts(restart.COMFYUI)
        while True:
            tail, kills = exit_status.Tail(), exit_status.memory_kills(self._environ)
            process = self._start(tail)
            if process is None:
                return
            status = process.wait()
            if self._stopping.is_set():
                return
            kills = exit_status.memory_kills(self._environ) - kills
            why = exit_status.words(status, tail.reason(), kills, self._environ)
            self._notes.worker_ended(now(), why)
            pause = restarts.delay(now() - process.spawned)
            if status in _FINAL:
                self._over(f"The worker has ended, so the pod stops: {why}.", status)
                return
            if pause is None:
                words = f"The worker has ended {restarts.failures} times, so the pod stops: {why}."
                self._over(words, exit_status.exit_code(status))
                return
            number = f"{restarts.failures} of {restarts.most}"
            self._say(f"The worker has ended: {why}. It is started again in {pause:g} s ({number}).")
            if self._stopping.wait(pause):
                return

    def _start(self, tail: exit_status.Tail) -> ChildProcess | None:
        """Start its next life; None where it is to stop, or cannot be started."""
        with self._turn:
            if self._stopping.is_set():
                return None
            try:
                environ = secret_variables.without_access(self._environ)
                process = ChildProcess(self._argv, environ, NAME, self._run)
            except OSError as error:
                self._over(f"{self._argv[0]} cannot be started ({error.strerror}), so the pod stops.", UNFIT)
                return None
            self._process = process
        process.forward_output(*self._takers, tail.feed)
        self._notes.worker_spawned(process.spawned)
        return process
