"""Fetching what the image does not hold: several files at once, in the background, while ComfyUI serves.

    python3 -I -S /opt/podkiln fetch [MODEL...] [--optional]     without names: what `decide` enabled
    python3 -I -S /opt/podkiln fetch --status

It writes $PODKILN_RUN/fetch.json, says how far it is each ten seconds, and ends with a summary. Whatever goes
wrong costs the file it goes wrong with, and one sentence.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pod import disk, listing, status
from pod.claim import Claim
from pod.crew import Goal
from pod.download import Download, StoppedError
from pod.failure import SETTING_MALFORMED, PodError
from pod.patience import Policy
from pod.progress import Board, Progress
from pod.resolving import Resolver
from pod.sources import Hubs, request_for
from pod.store import Store
from pod.web import FETCH_FAILED, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pod.listing import File
    from pod.resolving import Resolved

JOBS = 3  # files at once: a network volume gives about 150 MB/s in all, whoever shares it
POLL_SECONDS = 0.1
BOARD_SECONDS = 1.0
LOG_SECONDS = 10.0
BUSY_SECONDS = 1.0
STOP_SECONDS = 1.0
STOPPED = 128 + signal.SIGTERM


@dataclass
class Job:
    """One file on its way; `not_before` is when a file that another pod is fetching is looked at again."""

    file: File
    progress: Progress
    claim: Claim
    download: Download | None = None
    not_before: float = 0.0


class Fetcher:
    """Works through the files of one run."""

    def __init__(self, files: Sequence[File], store: Store, hubs: Hubs, policy: Policy, run: Path) -> None:
        self._store = store
        self._hubs = hubs
        self._policy = policy
        self._stopping = threading.Event()
        self._space = disk.Space()
        self._resolver = Resolver(
            store.target.parent / ".podkiln/resolved.json", hubs, policy, self._stopping
        )
        self._jobs = [
            Job(file, Progress(file.model, file.label, file.size), Claim(store.staging(file, ".lock")))
            for file in files
        ]
        self._waiting = deque(self._jobs)
        self._turn = threading.Lock()
        self.board = Board(run / "fetch.json", [job.progress for job in self._jobs])

    def run(self, workers: int) -> int:
        """Fetch all; returns the exit code."""
        threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(min(workers, len(self._jobs)))
        ]
        for thread in threads:
            thread.start()
        self._watch(threads)
        if self._stopping.is_set():
            return self._end(threads)
        failed = any(job.progress.state == "failed" for job in self._jobs)
        self.board.write("failed" if failed else "done")
        say(self.board.summary())
        return FETCH_FAILED if failed else 0

    def _watch(self, threads: Sequence[threading.Thread]) -> None:
        """Keep fetch.json and the log up to date until the work is done or must stop."""
        written, logged = -BOARD_SECONDS, 0.0
        started = time.monotonic()
        while any(thread.is_alive() for thread in threads) and not self._stopping.wait(POLL_SECONDS):
            now = time.monotonic() - started
            if now - written >= BOARD_SECONDS:
                written = now
                self.board.write("running")
            if now - logged >= LOG_SECONDS:
                logged = now
                for line in self.board.lines():
                    say(line)

    def stop(self) -> None:
        """Ask for an early end; safe in a signal handler."""
        self._stopping.set()

    def _end(self, threads: Sequence[threading.Thread]) -> int:
        """Stop within STOP_SECONDS: what is on disk is safe at any moment, so nobody need be waited for."""
        for job in self._jobs:
            if job.download:
                job.download.stop()
        end = time.monotonic() + STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        for job in self._jobs:
            job.claim.release()
            if job.progress.state not in {"present", "fetched", "failed"}:
                job.progress.state = "stopped"
        self.board.write("stopped")
        say(f"stopped; what has arrived is kept. {self.board.summary()}")
        return STOPPED

    def _work(self) -> None:
        while job := self._next():
            try:
                self._advance(job)
            except StoppedError:
                return
            except PodError as error:
                if self._stopping.is_set():
                    return
                self._fail(job, str(error))
            except OSError as error:
                self._fail(job, str(disk.refusal(error, self._store.place(job.file))))
            except Exception as bug:  # noqa: BLE001 (one file's trouble, even ours, must not cost the others)
                self._fail(
                    job, f"failed by a mistake in podkiln ({type(bug).__name__}: {bug}): please report it"
                )

    def _next(self) -> Job | None:
        """Return the next file that nobody else is busy with, waiting if need be; None when all are done."""
        while not self._stopping.is_set():
            with self._turn:
                if not self._waiting:
                    return None
                now = time.monotonic()
                job = next((job for job in self._waiting if job.not_before <= now), None)
                if job:
                    self._waiting.remove(job)
                    return job
            self._stopping.wait(BUSY_SECONDS / 4)
        return None

    def _advance(self, job: Job) -> None:
        """Bring one file as far as it can be brought now."""
        store, progress = self._store, job.progress
        resolved = self._resolve(job)
        if resolved is None:
            return
        if path := store.known(job.file, resolved.expected, resolved.size):
            self._finish(job, "present", path)
            return
        try:
            owned = job.claim.acquire()
        except OSError as error:
            if not (path := store.anywhere(job.file, resolved.size)):
                raise
            progress.say(f"not checked: {disk.mount_point(path)} cannot be written ({error.strerror})")
            self._finish(job, "present", path)
            return
        if not owned:
            self._put_back(job)
            return
        try:
            progress.state = "checking"
            if path := store.examine(job.file, resolved.expected, resolved.size):
                self._finish(job, "present", path)
            else:
                self._fetch(job, resolved)
        finally:
            job.claim.release()
            job.claim = Claim(store.staging(job.file, ".lock"))

    def _resolve(self, job: Job) -> Resolved | None:
        """Learn what to expect; when the hub cannot say, a file that is there is left as it is."""
        if job.progress.state == "queued":
            job.progress.state = "resolving"
        try:
            return self._resolver.resolve(job.file, job.progress.say)
        except RefusedError as error:
            path = self._store.anywhere(job.file, None)
            if path is None:
                raise
            job.progress.say(f"not checked: {error}")
            say(f"{job.file.label} is there, unchecked, since it {error}")
            self._finish(job, "present", path)
            return None

    def _fetch(self, job: Job, resolved: Resolved) -> None:
        file, store = job.file, self._store
        grown = store.staging(file, ".part")
        goal = Goal(
            file.name,
            grown,
            request_for(file.source, self._hubs, resolved.revision),
            resolved.expected,
            resolved.size,
        )
        job.download = Download(
            goal,
            self._policy,
            job.progress,
            lambda need: self._space.promise(grown.parent, need, job.progress),
        )
        if self._stopping.is_set():
            raise StoppedError
        say(f"{job.file.model}: {file.label}: fetching")
        job.download.run()
        if job.claim.lost:
            raise RefusedError("is being fetched by another pod, which took this one for dead")
        self._finish(job, "fetched", store.publish(file, grown, resolved.expected))

    def _put_back(self, job: Job) -> None:
        """Let another file go first while another pod fetches this one."""
        if job.progress.state != "waiting":
            say(f"{job.file.label} is being fetched by another pod on this volume; waiting for it")
        job.progress.state = "waiting"
        job.not_before = time.monotonic() + BUSY_SECONDS
        with self._turn:
            self._waiting.append(job)

    def _finish(self, job: Job, state: str, path: Path) -> None:
        progress = job.progress
        progress.path = str(path)
        progress.bytes = progress.total = path.stat().st_size
        progress.state = state
        if state == "fetched":
            progress.say("")
            say(f"{progress.model}: {progress.file}: fetched and checked")

    def _fail(self, job: Job, reason: str) -> None:
        job.progress.error = f"{job.file.label} {reason}"
        job.progress.state = "failed"
        say(f"{job.file.model}: {job.progress.error}.")


def main(argv: list[str]) -> int:
    """Run the command; returns 0, 1 when a file failed, 143 when stopped. Raises PodError."""
    parser = argparse.ArgumentParser(
        prog="fetch", description="Fetch the files of models, or say how far that is."
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: those that are enabled")
    parser.add_argument("--optional", action="store_true", help="optional files too")
    parser.add_argument("--status", action="store_true", help="say how far the fetch is")
    options = parser.parse_args(argv)
    run = Path(os.environ.get("PODKILN_RUN", "/run/podkiln"))
    if options.status:
        return status.show(run / "fetch.json")
    models = listing.read(Path(os.environ.get("PODKILN_ROOT", "/opt/podkiln")) / "models.json")
    files = listing.wanted(models, options.models or listing.decided(run), optional=options.optional)
    fetcher = Fetcher(files, store(os.environ), Hubs.from_environment(os.environ), policy(os.environ), run)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: fetcher.stop())
    return fetcher.run(_number(os.environ, "FETCH_JOBS", JOBS))


def store(environment: Mapping[str, str]) -> Store:
    """Return where models lie in this pod."""
    volume = Path(environment.get("PODKILN_VOLUME", "/runpod-volume"))
    return Store(
        baked=Path(environment.get("PODKILN_BAKED", "/opt/models")),
        target=Path(environment.get("WORKSPACE") or "/workspace") / "models",
        volume=volume / "models",
        cache=volume / "huggingface-cache/hub",
        say=say,
    )


def policy(environment: Mapping[str, str]) -> Policy:
    """Return the limits: FETCH_CONNECTIONS for each file; the chunk only tests change."""
    default = Policy()
    return replace(
        default,
        connections=_number(environment, "FETCH_CONNECTIONS", default.connections),
        chunk=_number(environment, "PODKILN_FETCH_CHUNK", default.chunk),
    )


def say(text: str) -> None:
    """Write one line of the log."""
    print(f"fetch: {text}", file=sys.stderr, flush=True)


def _number(environment: Mapping[str, str], variable: str, default: int) -> int:
    value = environment.get(variable, "").strip()
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise PodError(
            f"{variable}={value!r} is no whole number above 0; {default} is the default", SETTING_MALFORMED
        )
    return int(value)
