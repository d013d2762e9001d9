"""The queue of `serve`: jobs wait here, not in ComfyUI, so that each knows its place and can be taken out."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from worker import job_record
from worker.job_record import Job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from worker.job_file import JobFile
    from worker.serve_settings import Settings

STOPPING: Final = "The worker was stopped before it came to this job: send it again."
TIMED_OUT: Final = "The job ran for {seconds:g} s, which is the longest that it may: it was ended."
_DELIVERED_SECONDS: Final = 60.0  # that a result stays whose client has got it: RunPod's, of /runsync
_MOST_KEPT: Final = 10_000  # jobs that have ended
_LONGEST_PAUSE: Final = 60  # seconds that a client is asked to wait before it tries again
_LAST_WORDS: Final = 2.0  # seconds that jobs which were stopped may take beyond their own grace


class JobQueue:
    """The jobs of this worker.

    Args:
        handle: Answers a job of the platform's form, and never raises.
        settings: How many may wait and run, how long, and what is kept.
        open_jobs: Where it is noted which are open.
    """

    def __init__(
        self,
        handle: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
        settings: Settings,
        open_jobs: JobFile,
    ) -> None:
        self._handle = handle
        self._settings = settings
        self._open_jobs = open_jobs
        self._worker = os.environ.get("RUNPOD_POD_ID", "")
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._running: dict[asyncio.Task[None], Job] = {}
        self._ended: dict[str, float] = {}  # when each is forgotten, in the order of their ends
        self._kept = 0  # bytes of what came of them
        self._seconds = 1.0  # that a job ran, lately
        self._counts = {job_record.COMPLETED: 0, job_record.FAILED: 0}
        self._held = False
        self.stopping = False

    @property
    def full(self) -> bool:
        """Whether no further job can wait."""
        return len(self._waiting) >= self._settings.queue

    @property
    def pause(self) -> int:
        """Seconds after which there may be room for a job."""
        return max(1, min(_LONGEST_PAUSE, round(self._seconds / self._settings.concurrency)))

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are and were, by RunPod's names."""
        return {
            "completed": self._counts[job_record.COMPLETED],
            "failed": self._counts[job_record.FAILED],
            "inProgress": len(self._running),
            "inQueue": len(self._waiting),
            "retried": 0,
        }

    def submit(self, given: dict[str, Any], limit: float, prefix: str = "") -> Job:
        """Let a job wait for its turn; who asks has looked whether it is full, or stopping."""
        job = Job(f"{prefix}{uuid.uuid4()}", given, limit, self._worker)
        self._jobs[job.id] = job
        self._waiting.append(job)
        self._open_jobs.begin(job.id)
        self._advance()
        return job

    def adopt(self, numbers: Iterable[str], error: str) -> None:
        """Take jobs over that an earlier process left open, as failed."""
        for number in numbers:
            job = Job(number, {}, 0.0, self._worker)
            self._jobs[number] = job
            self._end(job, job_record.FAILED, {"error": error})

    def hold(self) -> None:
        """Begin no job until `release` is called; they wait."""
        self._held = True

    def release(self) -> None:
        """Begin jobs from now on."""
        self._held = False
        self._advance()

    def find(self, number: str) -> Job | None:
        """Return the job of an id, unless there is none or it is forgotten."""
        if self._ended.get(number, time.monotonic() + 1) <= time.monotonic():
            self._forget(number)
        return self._jobs.get(number)

    def public(self, job: Job) -> bytes:
        """Return a job as clients see it, as JSON."""
        if job.over:
            return job.final
        position = self._waiting.index(job) + 1 if job.status == job_record.IN_QUEUE else 0
        return job_record.encoded(job.public(position))

    def tell(self, number: str, message: dict[str, Any]) -> None:
        """Take how far a job is."""
        if job := self._jobs.get(number):
            job.tell(message)

    def cancel(self, job: Job) -> None:
        """End a job, unless it has ended."""
        if job.over:
            return
        if job in self._waiting:
            self._waiting.remove(job)
        self._end(job, job_record.CANCELLED, {})
        if job.task:
            job.task.cancel()  # the next one begins when ComfyUI is rid of it

    def purge(self) -> int:
        """Cancel all that wait; returns how many."""
        waiting = list(self._waiting)
        for job in waiting:
            self.cancel(job)
        return len(waiting)

    def delivered(self, job: Job) -> None:
        """Note that a client has got what came of a job."""
        if job.id in self._ended:
            self._ended[job.id] = min(self._ended[job.id], time.monotonic() + _DELIVERED_SECONDS)

    async def stop(self, grace: float) -> bool:
        """Begin no further job, fail those that wait, and wait for the others, which end within the grace.

        Returns whether there were any.
        """
        self.stopping = True
        found = bool(self._waiting or self._running)
        for job in list(self._waiting):
            self._waiting.remove(job)
            self._end(job, job_record.FAILED, {"error": STOPPING})
        if self._running:
            await asyncio.wait(set(self._running), timeout=grace + _LAST_WORDS)
        for job in list(self._running.values()):
            self.cancel(job)
        return found

    def _advance(self) -> None:
        while not self._held and self._waiting and len(self._running) < self._settings.concurrency:
            job = self._waiting.popleft()
            job.begin()
            job.task = asyncio.create_task(self._run(job))
            self._running[job.task] = job
            job.task.add_done_callback(self._ran)
            for other in self._waiting:
                other.notify()

    def _ran(self, task: asyncio.Task[None]) -> None:
        if job := self._running.pop(task, None):
            job.task = None  # what is kept of a job is small
        self._advance()

    async def _run(self, job: Job) -> None:
        try:
            async with asyncio.timeout(job.limit):
                answer = await self._handle({"id": job.id, **job.given})
        except TimeoutError:
            self._end(job, job_record.TIMED_OUT, {"error": TIMED_OUT.format(seconds=job.limit)})
        except asyncio.CancelledError:
            self._end(job, job_record.CANCELLED, {})
        else:
            status = job_record.FAILED if "error" in answer else job_record.COMPLETED
            self._end(job, status, answer)

    def _end(self, job: Job, status: str, answer: dict[str, Any]) -> None:
        if job.over:
            return
        job.end(status, answer, self._settings.response_bytes)
        now = time.monotonic()
        if job.begun:
            self._seconds += 0.2 * (now - job.begun - self._seconds)
        if job.status != job_record.CANCELLED:
            done = job.status == job_record.COMPLETED
            self._counts[job_record.COMPLETED if done else job_record.FAILED] += 1
        self._open_jobs.end(job.id)
        self._ended[job.id] = now + self._settings.keep_seconds
        self._kept += len(job.final)
        for number, until in list(self._ended.items()):
            full = self._kept > self._settings.keep_bytes or len(self._ended) > _MOST_KEPT
            if number != job.id and (full or until <= now):
                self._forget(number)

    def _forget(self, number: str) -> None:
        self._ended.pop(number, None)
        if job := self._jobs.pop(number, None):
            self._kept -= len(job.final)
