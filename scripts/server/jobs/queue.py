"""The queue of the one model: a generation at a time, the others wait here and know their place."""

from __future__ import annotations

import asyncio
import time
import traceback
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from pod.util.printable import shown
from server.generation.request import CancelledError, OutOfMemoryError, RequestError
from server.jobs import counters
from server.jobs.counters import Counters
from server.jobs.public import plain
from server.jobs.record import Failure, Job
from worker import job_record
from worker.handler import log

if TYPE_CHECKING:
    from server.generation.request import Generation, Model, Progress, Result
    from server.jobs.thread import OneThread
    from worker.serve_settings import Settings

BUG: Final = "An internal error of podkiln: its log says more."
STOPPING: Final = "The server is being stopped: send the request again, to another one."
TIMED_OUT: Final = "The generation took {seconds:g} s, which is the longest that it may: it was ended."
FULL: Final = "As many generations wait as may wait here: try again later."
_MOST_KEPT: Final = 10_000  # jobs that are over
_LONGEST_PAUSE: Final = 60  # seconds that a client is asked to wait before it tries again
_STUCK_SECONDS: Final = 900.0  # that a step may take until the model counts as stuck
_LAST_WORDS: Final = 1.0  # seconds in which the model may stop when all ends
_REFUSED: Final = 400
_OUTCOMES: Final = {
    job_record.COMPLETED: counters.COMPLETED,
    job_record.CANCELLED: counters.CANCELLED,
    job_record.TIMED_OUT: counters.TIMED_OUT,
}


class FullError(Exception):
    """As many jobs wait as may wait. `pause`: seconds after which there may be room."""

    def __init__(self, pause: int) -> None:
        super().__init__(FULL)
        self.pause = pause


class StoppingError(Exception):
    """No job is taken any more: the message says why."""


class Queue:
    """The jobs of the model.

    Args:
        settings: How many may wait, how long one may run, and what is kept.
        thread: Where the model generates.
    """

    def __init__(self, settings: Settings, thread: OneThread) -> None:
        self._settings = settings
        self._thread = thread
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._task: asyncio.Task[None] | None = None
        self._forgotten: dict[str, float] = {}  # when each is forgotten, in the order of their ends
        self._kept = 0  # bytes of what came of them
        self._seconds = 1.0  # that a job ran, lately
        self.counters = Counters()
        self.stopping = False
        self.broken = asyncio.Event()
        """Set where the card's context is lost: nothing that comes later can work in this process."""

    @property
    def pause(self) -> int:
        """Seconds after which there may be room for a job."""
        return max(1, min(_LONGEST_PAUSE, round(self._seconds)))

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def running(self) -> bool:
        """Whether the model generates."""
        return self._running is not None

    @property
    def stuck(self) -> bool:
        """Whether the model does not stop although its job was ended long ago."""
        job = self._running
        return bool(job and job.ended and time.monotonic() - job.ended > _STUCK_SECONDS)

    def check_room(self) -> None:
        """Check that a job would be taken. Raises FullError, StoppingError."""
        if self.stopping or self.broken.is_set():
            raise StoppingError(STOPPING)
        if self._running and self.waiting >= self._settings.queue:
            raise FullError(self.pause)

    def submit(self, model: Model, generation: Generation, about: dict[str, Any] | None = None) -> Job:
        """Let a job wait for its turn. Raises FullError, StoppingError."""
        self.check_room()
        job = Job(str(uuid.uuid4()), generation, about or {})
        self._jobs[job.id] = job
        self._waiting.append(job)
        self._model = model
        self._advance()
        return job

    def find(self, number: str) -> Job | None:
        """Return the job of an id, unless there is none or it is forgotten."""
        if self._forgotten.get(number, time.monotonic() + 1) <= time.monotonic():
            self.forget(number)
        return self._jobs.get(number)

    def all(self) -> list[Job]:
        """Return the jobs that are known, the newest first."""
        now = time.monotonic()
        for number in [each for each, until in self._forgotten.items() if until <= now]:
            self.forget(number)
        return [*reversed(self._jobs.values())]

    def position(self, job: Job) -> int:
        """Return a job's place among those that wait, from 1; 0 for one that does not."""
        return self._waiting.index(job) + 1 if job in self._waiting else 0

    def cancel(self, job: Job) -> None:
        """End a job, unless it has ended; the model stops within a step."""
        if job.over:
            return
        if job in self._waiting:
            self._waiting.remove(job)
        job.stop.set()
        self._end(job, job_record.CANCELLED)

    def forget(self, number: str) -> None:
        """Forget a job that is over."""
        self._forgotten.pop(number, None)
        if job := self._jobs.pop(number, None):
            self._kept -= job.kept

    async def stop(self, grace: float) -> bool:
        """Begin no further job, fail those that wait, and give the running one the grace to end.

        Returns whether there were any.
        """
        self.stopping = True
        found = bool(self._waiting or self._running)
        for job in list(self._waiting):
            self._waiting.remove(job)
            self._end(job, job_record.FAILED, failure=Failure(STOPPING, 503))
        if task := self._task:
            done, _ = await asyncio.wait({task}, timeout=grace)
            if self._running and not done:
                self._running.stop.set()
                self._end(self._running, job_record.FAILED, failure=Failure(STOPPING, 503))
                await asyncio.wait({task}, timeout=_LAST_WORDS)
        return found

    def _advance(self) -> None:
        if self._running or not self._waiting:
            return
        self._running = job = self._waiting.popleft()
        job.begin()
        self.counters.phase(counters.QUEUED, (job.begun or 0) - job.submitted)
        self._task = asyncio.create_task(self._run(job))
        for other in self._waiting:
            other.notify()

    async def _run(self, job: Job) -> None:
        generation, model, loop = job.generation, self._model, asyncio.get_running_loop()
        if generation is None:
            raise AssertionError  # a job that waits has one

        def tell(progress: Progress) -> None:
            loop.call_soon_threadsafe(job.tell, progress)

        call = asyncio.ensure_future(
            self._thread.call(lambda: model.generate(generation, tell, job.stop.is_set))
        )
        try:
            await asyncio.wait({call}, timeout=self._settings.job_seconds)
            if not call.done():
                job.stop.set()
                said = TIMED_OUT.format(seconds=self._settings.job_seconds)
                self._end(job, job_record.TIMED_OUT, failure=Failure(said))
                await asyncio.wait({call})  # the next one begins when the model is free
            self._settle(job, call)
        finally:
            self._running = None
            self._advance()

    def _settle(self, job: Job, call: asyncio.Future[Result]) -> None:
        error = call.exception()
        if error is None:
            result = call.result()
            self.counters.result(result)
            self._end(job, job_record.COMPLETED, result)
        elif isinstance(error, CancelledError):
            self._end(job, job_record.CANCELLED)
        else:
            self._end(job, job_record.FAILED, failure=self._failure(job, error))

    def _failure(self, job: Job, error: BaseException) -> Failure:
        if isinstance(error, RequestError):
            return Failure(plain(error), 400, error.parameter, "invalid_value")
        if isinstance(error, OutOfMemoryError):
            return Failure(plain(error), 500, code=counters.OUT_OF_MEMORY)
        log(job.id, "bug", traceback="".join(traceback.format_exception(error)))
        if type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error):
            log(job.id, "card lost", error=shown(error, 400))
            self.broken.set()
        return Failure(BUG, 500)

    def _end(
        self, job: Job, status: str, result: Result | None = None, failure: Failure | None = None
    ) -> None:
        if job.over:
            return
        job.end(status, result, failure)
        now = time.monotonic()
        if job.begun:
            self._seconds += 0.2 * (now - job.begun - self._seconds)
        self.counters.outcomes[_outcome(job)] += 1
        self._forgotten[job.id] = now + self._settings.keep_seconds
        self._kept += job.kept
        for number, until in list(self._forgotten.items()):
            full = self._kept > self._settings.keep_bytes or len(self._forgotten) > _MOST_KEPT
            if not full and until > now:
                break
            if number != job.id:
                self.forget(number)


def _outcome(job: Job) -> str:
    if job.status == job_record.FAILED and job.failure:
        if job.failure.code == counters.OUT_OF_MEMORY:
            return counters.OUT_OF_MEMORY
        return counters.REFUSED if job.failure.status == _REFUSED else counters.FAILED
    return _OUTCOMES.get(job.status, counters.FAILED)
