"""The files of one run: which goes next, how many at once, and who is told how far they are."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from pod.downloads.disk_space import DiskReservations
from pod.downloads.job import DownloadJob, RunContext
from pod.downloads.progress import ProgressReport
from pod.downloads.states import RunState, State
from pod.downloads.terminal import Display
from pod.downloads.worker_pool import WorkerPool
from pod.net.http import FETCH_FAILED
from pod.resolve.hashes import Resolver
from pod.resolve.model_refs import ModelRefResolver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pod.downloads.model_store import ModelStore
    from pod.model_refs.models_json import ModelFile
    from pod.net.hubs import Hubs
    from pod.net.transfer_policy import TransferPolicy
    from pod.resolve.model_facts import Facts

POLL_SECONDS = 0.1
BOARD_SECONDS = 1.0
STOP_SECONDS = 1.0
STOPPED = 128 + signal.SIGTERM


class Fetcher:
    """Works through the files of one run, in their order. With `again`, what is there is hashed again.

    `record` is where it writes how far it is; `facts` tell kinds of models; `offered` are the files of all
    models of the image, enabled or not.
    """

    def __init__(
        self,
        files: Sequence[ModelFile],
        store: ModelStore,
        hubs: Hubs,
        policy: TransferPolicy,
        record: Path,
        facts: Facts,
        *,
        offered: Sequence[ModelFile] = (),
        display: Display | None = None,
        again: bool = False,
    ) -> None:
        self._policy = policy
        self._display = display or Display()
        self._stopping = threading.Event()
        self._finished = threading.Event()
        pins = store.target.parent / ".podkiln/resolved.json"
        resolver = Resolver(pins, hubs, policy, self._stopping, facts, self._display.say)
        context = RunContext(
            store,
            hubs,
            policy,
            DiskReservations(),
            resolver,
            ModelRefResolver(resolver, store, offered),
            self._stopping,
            self._display.say,
            again,
        )
        self._jobs = [DownloadJob(file, context) for file in files]
        self._waiting = deque(self._jobs)
        self._active: set[DownloadJob] = set()
        self._turn = threading.Lock()
        self._most = 0
        self._workers: WorkerPool | None = None
        self.board = ProgressReport(record, [job.progress for job in self._jobs], again=again)

    def run(self, jobs: int) -> int:
        """Fetch all, at most `jobs` files at once; returns the exit code."""
        self._most = jobs
        if self._jobs:
            # Its threads look for work before it stands here: `_begin` has none for them until it does.
            self._workers = WorkerPool(max(self._policy.connections, 1), self._begin)
            self._workers.notify_workers()
            self._watch()
            self._workers.end()
        if self._policy.limits.idle:
            self._policy.limits.idle.close()
        if self._stopping.is_set():
            return self._end()
        failed = any(job.progress.state == State.FAILED for job in self._jobs)
        self.board.write(RunState.FAILED if failed else RunState.DONE)
        self._display.end(self.board.summary())
        return FETCH_FAILED if failed else 0

    def stop(self) -> None:
        """Ask for an early end; safe in a signal handler."""
        self._stopping.set()
        self._finished.set()

    def _watch(self) -> None:
        """Keep the record and the display up to date until the work is done or must stop."""
        written = -BOARD_SECONDS
        started = time.monotonic()
        while not self._finished.wait(POLL_SECONDS):
            now = time.monotonic() - started
            if now - written >= BOARD_SECONDS:
                written = now
                self.board.tick()
                self.board.write(RunState.RUNNING)
            self._display.show(self.board, now)

    def _end(self) -> int:
        """Stop within STOP_SECONDS; threads are not waited for, as files on disk are always consistent."""
        for job in self._jobs:
            job.stop()
        end = time.monotonic() + STOP_SECONDS
        for thread in self._workers.threads if self._workers else ():
            thread.join(max(0.0, end - time.monotonic()))
        for job in self._jobs:
            job.abandon()
        self.board.write(RunState.STOPPED)
        self._display.end(f"stopped; what has arrived is kept. {self.board.summary()}")
        return STOPPED

    def _begin(self) -> Callable[[], None] | None:
        """Return the work on the next file when one may begin now."""
        if not self._workers:  # without these a file would be fetched by connections of its own
            return None
        with self._turn:
            now = time.monotonic()
            if self._stopping.is_set() or len(self._active) >= self._most:
                return None
            if any(job.opening() for job in self._active):
                return None
            job = next((job for job in self._waiting if job.not_before <= now), None)
            if job is None:
                return None
            self._waiting.remove(job)
            self._active.add(job)
            job.begun = now
        return lambda: self._work(job)

    def _work(self, job: DownloadJob) -> None:
        done = job.run(self._workers)
        with self._turn:
            self._active.discard(job)
            if not done:
                self._waiting.append(job)
            if not self._active and not self._waiting:
                self._finished.set()
        if self._workers:
            self._workers.notify_workers()
