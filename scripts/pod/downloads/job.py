"""One file of a run: what becomes of it, from what is asked for to a file that is there and right.

A file that is there and right is left alone; one that another pod fetches is waited for; whatever goes wrong
costs the file it goes wrong with, and one sentence.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from pod.downloads import disk_space, part_journal
from pod.downloads.download import Download, StoppedError
from pod.downloads.probe import DownloadTarget
from pod.downloads.progress import Progress
from pod.downloads.staging import Staging
from pod.downloads.states import OVER, State
from pod.errors import PodError
from pod.net.http import RefusedError
from pod.net.hubs import request_for
from pod.net.integrity import check_contents
from pod.resolve.model_refs import remarks
from pod.util.dataclass import dataclass, replace
from pod.util.file_lease import FileLease
from pod.util.pickles import is_pickle

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from pod.downloads.model_store import ModelStore
    from pod.downloads.staging import StagingPlan
    from pod.downloads.worker_pool import WorkerPool
    from pod.model_refs.models_json import ModelFile
    from pod.net.hubs import Hubs
    from pod.net.transfer_policy import TransferPolicy
    from pod.resolve.hashes import Resolved, Resolver
    from pod.resolve.model_refs import ModelRefResolver

BUSY_SECONDS = 1.0  # until a file that another pod is fetching is looked at again
OPENING_SECONDS = 0.5  # how long a large file may take to say how many connections it can use
_OPENING = frozenset({State.QUEUED, State.RESOLVING, State.CHECKING, State.FETCHING})


@dataclass(frozen=True, eq=False)
class RunContext:
    """What the files of one run share. With `again`, what is there is hashed anew; `say` takes sentences."""

    store: ModelStore
    hubs: Hubs
    policy: TransferPolicy
    space: disk_space.DiskReservations
    resolver: Resolver
    finder: ModelRefResolver
    stopping: threading.Event
    say: Callable[[str], None]
    again: bool = False


class DownloadJob:
    """One file on its way; `not_before` is when a file that another pod is fetching is looked at again."""

    def __init__(self, file: ModelFile, context: RunContext) -> None:
        self.file = file
        self.progress = Progress(file.model, file.label, file.size, told=context.say)
        self.not_before = 0.0
        self.begun = 0.0
        self._context = context
        self._download: Download | None = None
        self._lease = self._new_lease()

    def opening(self) -> bool:
        """Whether it may still want all connections, so that the next file should not take one yet."""
        small = self.file.size is not None and self.file.size <= self._context.policy.chunk
        asking = self.progress.state in _OPENING and not self.progress.bytes
        return asking and not small and time.monotonic() < self.begun + OPENING_SECONDS

    def run(self, workers: WorkerPool | None) -> bool:
        """Bring it as far as it can be brought now; False when another pod has it, and it must wait."""
        try:
            return self._advance(workers)
        except StoppedError:
            pass
        except PodError as error:
            self._fail(str(error))
        except OSError as error:
            self._fail(str(disk_space.refusal(error, self._context.store.place(self.file))))
        except Exception as bug:  # noqa: BLE001 (one file's trouble, even ours, must not cost the others)
            told = f"{type(bug).__name__}: {bug}"
            self._fail(f"failed by an internal error of podkiln ({told}): please report it")
        return True

    def stop(self) -> None:
        """Let `run` end soon."""
        if self._download:
            self._download.stop()

    def abandon(self) -> None:
        """Leave it to others, whether or not `run` has ended."""
        self._lease.release()
        if self.progress.state not in OVER:
            self.progress.state = State.STOPPED

    # --- from what is asked for to a file that is there

    def _advance(self, workers: WorkerPool | None) -> bool:
        resolved = self._resolve()
        if resolved is None:
            return True
        context = self._context
        if not context.again and (path := context.store.known(self.file, resolved.expected, resolved.size)):
            self._finish(State.PRESENT, path)
            return True
        resolved = self._sized(resolved)
        try:
            owned = self._lease.acquire()
        except OSError as error:
            there = self._unwritable(resolved, error)
            if there is None:
                raise
            self._finish(State.PRESENT, there)
            return True
        if not owned:
            self._wait()
            return False
        try:
            if right := self._examined(resolved):
                self._finish(State.PRESENT, right)
            else:
                self._fetch_unless_brought(resolved, workers)
        finally:
            self._lease.release()
            self._lease = self._new_lease()
        return True

    def _resolve(self) -> Resolved | None:
        """Learn what to expect; when the hub cannot say, a file that is there is left as it is."""
        if self.progress.state == State.QUEUED:
            self.progress.state = State.RESOLVING
        try:
            if self.file.wish and not self.file.folder:
                self._find()
            return self._context.resolver.resolve(self.file, self.progress.say)
        except RefusedError as error:
            path = self._unchecked()
            if path is None:
                raise
            self.progress.say(f"not checked: {error}")
            self._context.say(f"{self.file.label} is there, unchecked, since it {error}")
            self._finish(State.PRESENT, path)
            return None

    def _unchecked(self) -> Path | None:
        """Return a file that may stay as it is though no hub says what it must be: a pickle may not.

        Raises RefusedError for one whose contents are not what its name says, OSError.
        """
        file, store = self.file, self._context.store
        if not file.folder or (is_pickle(file.name) and not file.vouched):
            return None
        path = store.anywhere(file, None)
        if path and not path.is_relative_to(store.baked):
            check_contents(path, file.name, vouched=file.vouched)
        return path

    def _find(self) -> None:
        """Learn what a wished file is, and where it belongs."""
        word = self.file.label
        self.file = self._context.finder.find(self.file, self.progress.say)
        self.progress.file, self.progress.total = self.file.label, self.file.size
        self.progress.tell(f"this is what {word} names")
        for remark in remarks(self.file):
            self.progress.tell(remark)
        self._lease = self._new_lease()

    def _wait(self) -> None:
        """Let another file go first while another pod fetches this one."""
        if self.progress.state != State.WAITING:
            self._context.say(
                f"{self.file.label} is being fetched by another pod on this volume; waiting for it"
            )
        self.progress.state = State.WAITING
        self.not_before = time.monotonic() + BUSY_SECONDS

    def _sized(self, resolved: Resolved) -> Resolved:
        """Ask for a size that is not known where something lies that would be hashed, however large it is."""
        store = self._context.store
        grown = any(os.path.lexists(store.staging(self.file, suffix)) for suffix in (".part", ".copy"))
        if resolved.size is not None or not (grown or store.holds(self.file)):
            return resolved
        size = self._context.resolver.size(self.file, resolved.revision, self.progress.say)
        return replace(resolved, size=size)

    def _unwritable(self, resolved: Resolved, error: OSError) -> Path | None:
        """Return the right file on a volume that takes no lease, hashed: nothing may vouch for it there."""
        if not disk_space.is_unwritable(error):
            return None  # something planted, say: whoever writes the volume must not choose what is hashed
        return self._examined(resolved)

    def _examined(self, resolved: Resolved) -> Path | None:
        """Return where the right file lies, hashing what must be hashed."""
        self.progress.state = State.CHECKING
        again, seen = self._context.again, self.progress.moved
        return self._context.store.examine(
            self.file, resolved.expected, resolved.size, again=again, seen=seen
        )

    def _fetch_unless_brought(self, resolved: Resolved, workers: WorkerPool | None) -> None:
        """Fetch; what fails since another pod took this one for dead is over once that one has the file."""
        try:
            self._fetch(resolved, workers)
        except (RefusedError, OSError):
            there = self._lease.lost and self._context.store.known(
                self.file, resolved.expected, resolved.size
            )
            if not there:
                raise
            self._finish(State.PRESENT, there)

    def _fetch(self, resolved: Resolved, workers: WorkerPool | None) -> None:
        growth = self._growth(self._context.store.area, resolved)
        try:
            self._bring(resolved, growth, workers)
        except OSError as error:
            if growth.copy is None or error.errno not in disk_space.FULL:
                raise disk_space.refusal(error, growth.part) from None
            self._context.say(f"{self.file.label}: {growth.part.parent} is full, so it goes on at its place")
            part_journal.remove(growth.part)
            self._bring(resolved, self._growth(Staging(), resolved), workers)

    def _growth(self, area: Staging, resolved: Resolved) -> StagingPlan:
        return area.growth(
            self._context.store.staging(self.file, ".part"),
            resolved.size,
            lambda folder, need: self._context.space.reserve(folder, need, self.progress),
        )

    def _bring(self, resolved: Resolved, growth: StagingPlan, workers: WorkerPool | None) -> None:
        """Fetch a file to where it grows, and give it its name. OSError: of the disk where it grows."""
        file, context = self.file, self._context
        request = request_for(file.source, context.hubs, resolved.revision)
        goal = DownloadTarget(file.name, growth.part, request, resolved.expected, resolved.size, growth.copy)
        self._download = Download(
            goal, context.policy, self.progress, lambda need: self._room(growth, need), workers
        )
        if context.stopping.is_set():
            raise StoppedError
        context.say(f"{file.model}: {file.label}: fetching{growth.where}")
        self._download.run()
        if self._lease.lost:
            raise RefusedError("is being fetched by another pod, which took this one for dead")
        try:
            place = context.store.publish(file, growth, resolved.expected)
        except OSError as error:
            raise disk_space.refusal(error, context.store.place(file)) from None
        self._finish(State.FETCHED, place)

    def _room(self, growth: StagingPlan, need: int) -> None:
        """Make sure that there is room where a file grows, and where it is copied to. Raises RefusedError."""
        copy = [(growth.copy.parent, self.progress.total or need)] if growth.copy else []
        self._context.space.promise(growth.part.parent, need, self.progress, *copy)

    def _new_lease(self) -> FileLease:
        return FileLease(self._context.store.staging(self.file, ".lock"))

    def _finish(self, state: State, path: Path) -> None:
        progress, store = self.progress, self._context.store
        store.area.forget(store.staging(self.file, ".part"))
        progress.path = str(path)
        progress.bytes = progress.total = path.stat().st_size
        progress.state = state
        if state == State.FETCHED:
            progress.say("")
            self._context.say(f"{progress.model}: {progress.file}: fetched and checked")

    def _fail(self, reason: str) -> None:
        if self._context.stopping.is_set():
            return
        self.progress.error = f"{self.file.label} {reason}"
        self.progress.state = State.FAILED
        self._context.say(f"{self.file.model}: {self.progress.error}.")
