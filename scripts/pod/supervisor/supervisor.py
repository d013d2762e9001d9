"""The supervisor of ComfyUI: passes on what it prints, starts it again when it dies, and ends it cleanly.

What ComfyUI prints goes to stdout as it comes; what start.sh and its services say comes in on stdin and goes
to stderr. Both go to $WORKSPACE/logs/comfyui.log too.

In an image that serves one model, its server is what is looked after (program.py).

Where the image takes jobs, what takes them runs beside ComfyUI and ends before it (job_worker.py).

A ComfyUI that dies is started again as pod.util.restart says. One that never served is not started again when
it ended with 2, which is how argparse refuses a command line, or with 0, which is how it ends when it was
told to do something else than serve. A restart of its own (ComfyUI-Manager does that) keeps the process, and
is not an exit. Where another program has taken the port meanwhile, the pod ends at once.

The supervisor ends last: it asks its parent to stop by SIGTERM, waits for the end of stdin, and has the last
word.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

from pod import decision as decide
from pod.errors import UNFIT
from pod.services import ping_config
from pod.supervisor import boot_timeline, exit_status, job_worker, ping_server, program
from pod.supervisor.job_worker import JobWorker
from pod.supervisor.log_file import AsyncLog
from pod.supervisor.process import ComfyProcess, FdWriter, ServerProcess, copy, now
from pod.util import ports, restart, serving
from pod.util.files import recall
from pod.util.say import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PORT_SECONDS = 2.0  # in which a port that a dead ComfyUI had is free again
ENDED = "ended"  # made in the run folder when the supervisor ends by itself
# For the last words of the services, which may be told to stop only when ComfyUI has ended, or were before.
LAST_SECONDS, LATE_SECONDS = 3.0, 0.7
NO_ENDPOINT = (
    "This is no worker of a RunPod endpoint (RUNPOD_WEBHOOK_GET_JOB is not set), so no jobs are taken; "
    "`/opt/venv/bin/python -I /opt/podkiln worker --test_input JSON` runs one."
)
LEAST_SECONDS = 1.0  # that ComfyUI has to end in, however long the jobs took to end


class Supervisor:
    """Looks after one ComfyUI at a time; a signal is obeyed in a thread of its own."""

    def __init__(
        self, argv: Sequence[str], parent: int, stop_seconds: float, environ: Mapping[str, str]
    ) -> None:
        self._argv = argv
        self._parent = parent
        self._stop_seconds = stop_seconds
        self._environ = environ
        self._run = Path(environ.get("PODKILN_RUN", "/run/podkiln"))
        self._program = program.of(environ)
        self._title = self._program.title
        self._out, self._err = FdWriter(1), FdWriter(2)
        self._log = AsyncLog(
            Path(environ.get("WORKSPACE") or "/workspace") / "logs",
            lambda text: self._err(f"{line(f'podkiln: {text}')}\n".encode()),
            self._program.log,
        )
        self._others = threading.Thread(target=copy, args=(0, self._err, self._log.put), daemon=True)
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._life: ComfyProcess | ServerProcess
        self._worker: JobWorker | None = None
        self._verdict = ("", 0)  # the last words and the exit code, where the pod stops before ComfyUI ends

    def keep(self, life: ComfyProcess | ServerProcess, called: int) -> int:
        """See ComfyUI through its lives until a signal or its last end; returns the pod's exit code.

        Args:
            life: The first one, running.
            called: The end of a pipe that tells of a signal.
        """
        self._life = life
        self._begin(called)
        self._begin_worker()
        restarts = restart.Restarts(restart.COMFYUI)
        while True:
            kills = exit_status.memory_kills(self._environ)
            tail = self._attend(life)
            status = life.wait()
            if self._stopping.is_set():
                return self._leave(*self._verdict)
            kills = exit_status.memory_kills(self._environ) - kills
            why = exit_status.words(status, tail.reason(), kills, self._environ)
            self._timeline.ended(now(), why)
            pause = restarts.delay(now() - life.spawned)
            if what := self._program.final(status, served=life.ready is not None):
                return self._leave(f"{what}: {why}.", exit_status.exit_code(status))
            subject = f"{self._title[0].upper()}{self._title[1:]}"
            if pause is None:
                words = f"{subject} has ended {restarts.failures} times, so the pod stops: {why}."
                return self._leave(words, exit_status.exit_code(status))
            number = f"{restarts.failures} of {restarts.most}"
            self.say(f"{subject} has ended: {why}. It is started again in {pause:g} s ({number}).")
            if self._stopping.wait(pause):
                return self._leave(*self._verdict)
            if other := self._port_taken():
                return self._leave(
                    f"{other}, so the pod stops: end that, or set {self._program.variable}.", UNFIT
                )
            if not self._restart():
                return self._leave(*self._verdict)
            life = self._life

    def say(self, text: str) -> None:
        """Put a sentence into the pod's log and the one on the volume."""
        said = f"{line(f'podkiln: {text}')}\n".encode()
        self._err(said)
        self._log.put(said)

    def _begin(self, called: int) -> None:
        threading.Thread(target=self._obey, args=(called,), daemon=True).start()
        decision = recall(self._run / "decision.json")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        said = decide.sentences(decision) if decision else []
        head = [f"--- {stamp} {os.uname().nodename}", *said]
        self._log.put("".join(f"{each}\n" for each in head).encode())
        self._others.start()
        try:
            started = boot_timeline.start_of(self._parent)
        except (OSError, ValueError):
            started = self._life.spawned
        self._timeline = boot_timeline.Timeline(self._run, started, self._life.spawned, self._program.name)
        if not self._program.has_beside:
            return
        wish = ping_config.read(self._environ, int(decision.get("port", 0)))
        ping_server.serve(
            wish,
            ping_server.HealthCache(self._program.problem, lambda: self._life.ready is not None),
            self.say,
        )

    def _begin_worker(self) -> None:
        """Start what takes jobs, where some can come."""
        if not self._program.has_beside:
            return
        argv = job_worker.command(self._argv[0], self._environ)
        if argv is None:
            if serving.way(self._environ):
                self.say(NO_ENDPOINT)
            return
        takers = (self._out, self._log.put)
        self._worker = JobWorker(argv, self._environ, takers, self.say, self._timeline, self._without_worker)
        self._worker.begin()

    def _without_worker(self, words: str, code: int) -> None:
        """Stop the pod, since nothing takes jobs any more."""
        with self._turn:
            if self._stopping.is_set():
                return
            self._verdict = (words, code)
            self._stopping.set()
        if not self._life.over:
            self._life.end(self._stop_seconds)

    def _attend(self, life: ComfyProcess | ServerProcess) -> exit_status.Tail:
        """Pass on what it prints, and say when it serves."""
        tail = exit_status.Tail()
        life.forward_output(self._out, self._log.put, tail.feed)
        if not self._program.listens:
            return tail
        threading.Thread(target=self._watch, args=(life,), daemon=True).start()
        return tail

    def _watch(self, life: ComfyProcess | ServerProcess) -> None:
        port = self._program.port()
        at = boot_timeline.wait_until_ready(
            lambda: life.over,
            self._program.patience,
            lambda: ports.is_held_by(port, life.group),
            self._program.problem,
        )
        if at is not None and not life.over:
            life.ready = at
            self.say(self._timeline.ready(at))
        elif not life.over:
            self.say(f"{self._title} has not answered for {boot_timeline.PATIENCE:.0f} s.")

    def _port_taken(self) -> str:
        """Return who has ComfyUI's port, as a sentence without its end; nothing when it is free."""
        port = self._program.port()
        end = time.monotonic() + PORT_SECONDS
        while ports.taken(port):
            if time.monotonic() > end:
                return f"port {port} is taken by {ports.holder(port)}, and {self._title} is to listen there"
            if self._stopping.wait(boot_timeline.PAUSE):
                break
        return ""

    def _restart(self) -> bool:
        """Start the next life, unless the pod is to stop."""
        with self._turn:
            if self._stopping.is_set():
                return False
            self._life = self._program.start(self._argv, str(self._run))
        self._timeline.spawned(self._life.spawned)
        return True

    def _obey(self, called: int) -> None:
        """End ComfyUI when a signal has come."""
        os.read(called, 1)
        begun = time.monotonic()
        with self._turn:
            self._stopping.set()
        if not self._life.over:
            self.say("stopping")
        if self._worker:
            self._worker.stop()
        if not self._life.over:
            self._life.end(max(LEAST_SECONDS, self._stop_seconds - (time.monotonic() - begun)))

    def _leave(self, words: str, code: int) -> int:
        """Have everybody else end, and have the last word."""
        if self._worker:
            self._worker.stop()
        with contextlib.suppress(OSError):  # start.sh takes an end without it for a violent one
            (self._run / ENDED).touch()
        if os.getppid() == self._parent:
            os.kill(self._parent, signal.SIGTERM)
        self._others.join(LAST_SECONDS if words else LATE_SECONDS)
        if words:
            self.say(words)
        self._log.close(LATE_SECONDS)
        return code
