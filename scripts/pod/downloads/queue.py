"""The files of one run: which goes next, what becomes of each, and who is told.

A file that is there and right is left alone; one that another pod fetches is waited for; whatever goes wrong
costs the file it goes wrong with, and one sentence.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from pod.downloads import disk_space, partial_file
from pod.downloads.download import Download, StoppedError
from pod.downloads.progress import Progress, ProgressReport
from pod.downloads.staging import Staging, StagingPlan
from pod.downloads.states import OVER, RunState, State
from pod.downloads.terminal import Display
from pod.downloads.transfer import DownloadTarget
from pod.downloads.worker_pool import WorkerPool
from pod.errors import PodError
from pod.net.http import FETCH_FAILED, RefusedError
from pod.net.hubs import request_for
from pod.resolve.hashes import Resolver
from pod.resolve.model_refs import ModelRefResolver, remarks
from pod.util.dataclass import dataclass
from pod.util.file_lease import FileLease

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pod.downloads.model_store import ModelStore
    from pod.model_refs.models_json import ModelFile
    from pod.net.hubs import Hubs
    from pod.net.transfer_policy import TransferPolicy
    from pod.resolve.hashes import Resolved
    from pod.resolve.model_facts import Facts

POLL_SECONDS = 0.1
BOARD_SECONDS = 1.0
BUSY_SECONDS = 1.0
OPENING_SECONDS = 0.5  # how long a large file may take to say how many connections it can use
STOP_SECONDS = 1.0
_OPENING = frozenset({State.QUEUED, State.RESOLVING, State.CHECKING, State.FETCHING})
STOPPED = 128 + signal.SIGTERM


@dataclass(eq=False)
class DownloadJob:
    """One file on its way; `not_before` is when a file that another pod is fetching is looked at again."""

    file: ModelFile
    progress: Progress
    lease: FileLease
    download: Download | None = None
    not_before: float = 0.0
    begun: float = 0.0

    def opening(self, chunk: int) -> bool:
        """Whether it may still want all connections, so that the next file should not take one yet."""
        small = self.file.size is not None and self.file.size <= chunk
        asking = self.progress.state in _OPENING and not self.progress.bytes
        return asking and not small and time.monotonic() < self.begun + OPENING_SECONDS


class Fetcher:
    """Works through the files of one run, in their order. With `again`, what is there is hashed anew.

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
        self._store = store
        self._hubs = hubs
        self._policy = policy
        self._display = display or Display()
        self._again = again
        self._stopping = threading.Event()
        self._finished = threading.Event()
        self._space = disk_space.DiskReservations()
        self._resolver = Resolver(
            store.target.parent / ".podkiln/resolved.json", hubs, policy, self._stopping, facts
        )
        self._finder = ModelRefResolver(self._resolver, store, offered)
        self._jobs = [
            DownloadJob(
                file,
                Progress(file.model, file.label, file.size, told=self._display.say),
                FileLease(store.staging(file, ".lock")),
            )
            for file in files
        ]
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
            self._workers = WorkerPool(max(self._policy.connections, 1), self._begin)
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
        """Stop within STOP_SECONDS: what is on disk is safe at any moment, so nobody need be waited for."""
        for job in self._jobs:
            if job.download:
                job.download.stop()
        end = time.monotonic() + STOP_SECONDS
        for thread in self._workers.threads if self._workers else ():
            thread.join(max(0.0, end - time.monotonic()))
        for job in self._jobs:
            job.lease.release()
            if job.progress.state not in OVER:
                job.progress.state = State.STOPPED
        self.board.write(RunState.STOPPED)
        self._display.end(f"stopped; what has arrived is kept. {self.board.summary()}")
        return STOPPED

    # --- which file goes next

    def _begin(self) -> Callable[[], None] | None:
        """Return the work on the next file when one may begin now."""
        with self._turn:
            now = time.monotonic()
            chunk = self._policy.chunk
            if self._stopping.is_set() or len(self._active) >= self._most:
                return None
            if any(job.opening(chunk) for job in self._active):
                return None
            job = next((job for job in self._waiting if job.not_before <= now), None)
            if job is None:
                return None
            self._waiting.remove(job)
            self._active.add(job)
            job.begun = now
        return lambda: self._work(job)

    def _put_back(self, job: DownloadJob) -> None:
        """Let another file go first while another pod fetches this one."""
        if job.progress.state != State.WAITING:
            self._display.say(
                f"{job.file.label} is being fetched by another pod on this volume; waiting for it"
            )
        job.progress.state = State.WAITING
        job.not_before = time.monotonic() + BUSY_SECONDS
        with self._turn:
            self._waiting.append(job)

    def _work(self, job: DownloadJob) -> None:
        try:
            self._advance(job)
        except StoppedError:
            pass
        except PodError as error:
            self._fail(job, str(error))
        except OSError as error:
            self._fail(job, str(disk_space.refusal(error, self._store.place(job.file))))
        except Exception as bug:  # noqa: BLE001 (one file's trouble, even ours, must not cost the others)
            self._fail(job, f"failed by a mistake in podkiln ({type(bug).__name__}: {bug}): please report it")
        with self._turn:
            self._active.discard(job)
            if not self._active and not self._waiting:
                self._finished.set()
        if self._workers:
            self._workers.notify_workers()

    # --- what becomes of it

    def _advance(self, job: DownloadJob) -> None:
        """Bring one file as far as it can be brought now."""
        store = self._store
        resolved = self._resolve(job)
        if resolved is None:
            return
        if not self._again and (path := store.known(job.file, resolved.expected, resolved.size)):
            self._finish(job, State.PRESENT, path)
            return
        try:
            owned = job.lease.acquire()
        except OSError as error:
            path = self._unwritable(job, resolved, error)
            if path is None:
                raise
            self._finish(job, State.PRESENT, path)
            return
        if not owned:
            self._put_back(job)
            return
        try:
            if path := self._examined(job, resolved):
                self._finish(job, State.PRESENT, path)
            else:
                self._fetch(job, resolved)
        finally:
            job.lease.release()
            job.lease = FileLease(store.staging(job.file, ".lock"))

    def _unwritable(self, job: DownloadJob, resolved: Resolved, error: OSError) -> Path | None:
        """Return what is there on a volume that cannot be written; hashed only when that was asked for."""
        if self._again:
            return self._examined(job, resolved)
        path = self._store.anywhere(job.file, resolved.size)
        if path:
            job.progress.say(
                f"not checked: {disk_space.mount_point(path)} cannot be written ({error.strerror})"
            )
        return path

    def _examined(self, job: DownloadJob, resolved: Resolved) -> Path | None:
        """Return where the right file lies, hashing what must be hashed."""
        job.progress.state = State.CHECKING
        return self._store.examine(
            job.file, resolved.expected, resolved.size, again=self._again, seen=job.progress.moved
        )

    def _resolve(self, job: DownloadJob) -> Resolved | None:
        """Learn what to expect; when the hub cannot say, a file that is there is left as it is."""
        if job.progress.state == State.QUEUED:
            job.progress.state = State.RESOLVING
        try:
            if job.file.wish and not job.file.folder:
                self._find(job)
            return self._resolver.resolve(job.file, job.progress.say)
        except RefusedError as error:
            path = self._store.anywhere(job.file, None)
            if path is None:
                raise
            job.progress.say(f"not checked: {error}")
            self._display.say(f"{job.file.label} is there, unchecked, since it {error}")
            self._finish(job, State.PRESENT, path)
            return None

    def _find(self, job: DownloadJob) -> None:
        """Learn what a wished file is, and where it belongs."""
        word = job.file.label
        job.file = self._finder.find(job.file, job.progress.say)
        job.progress.file, job.progress.total = job.file.label, job.file.size
        job.progress.tell(f"this is what {word} names")
        for remark in remarks(job.file):
            job.progress.tell(remark)
        job.lease = FileLease(self._store.staging(job.file, ".lock"))

    def _fetch(self, job: DownloadJob, resolved: Resolved) -> None:
        growth = self._growth(self._store.area, job, resolved)
        try:
            self._bring(job, resolved, growth)
        except OSError as error:
            if growth.copy is None or error.errno not in disk_space.FULL:
                raise disk_space.refusal(error, growth.part) from None
            self._display.say(f"{job.file.label}: {growth.part.parent} is full, so it goes on at its place")
            partial_file.remove(growth.part)
            self._bring(job, resolved, self._growth(Staging(), job, resolved))

    def _growth(self, area: Staging, job: DownloadJob, resolved: Resolved) -> StagingPlan:
        return area.growth(
            self._store.staging(job.file, ".part"),
            resolved.size,
            lambda folder, need: self._space.reserve(folder, need, job.progress),
        )

    def _bring(self, job: DownloadJob, resolved: Resolved, growth: StagingPlan) -> None:
        """Fetch a file to where it grows, and give it its name. OSError: of the disk where it grows."""
        file, store, progress = job.file, self._store, job.progress
        request = request_for(file.source, self._hubs, resolved.revision)
        goal = DownloadTarget(file.name, growth.part, request, resolved.expected, resolved.size, growth.copy)
        job.download = Download(
            goal, self._policy, progress, lambda need: self._room(growth, need, progress), self._workers
        )
        if self._stopping.is_set():
            raise StoppedError
        self._display.say(f"{file.model}: {file.label}: fetching{growth.where}")
        job.download.run()
        if job.lease.lost:
            raise RefusedError("is being fetched by another pod, which took this one for dead")
        try:
            place = store.publish(file, growth, resolved.expected)
        except OSError as error:
            raise disk_space.refusal(error, store.place(file)) from None
        self._finish(job, State.FETCHED, place)

    def _room(self, growth: StagingPlan, need: int, progress: Progress) -> None:
        """Make sure that there is room where a file grows, and where it is copied to. Raises RefusedError."""
        copy = [(growth.copy.parent, progress.total or need)] if growth.copy else []
        self._space.promise(growth.part.parent, need, progress, *copy)

    def _finish(self, job: DownloadJob, state: State, path: Path) -> None:
        progress = job.progress
        self._store.area.forget(self._store.staging(job.file, ".part"))
        progress.path = str(path)
        progress.bytes = progress.total = path.stat().st_size
        progress.state = state
        if state == State.FETCHED:
            progress.say("")
            self._display.say(f"{progress.model}: {progress.file}: fetched and checked")

    def _fail(self, job: DownloadJob, reason: str) -> None:
        if self._stopping.is_set():
            return
        job.progress.error = f"{job.file.label} {reason}"
        job.progress.state = State.FAILED
        self._display.say(f"{job.file.model}: {job.progress.error}.")
