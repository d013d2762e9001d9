"""One file, from wherever the last attempt stopped to bytes that have the hash that was promised."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pod.downloads import part_journal
from pod.downloads.probe import ChangedError, Mode
from pod.downloads.states import State
from pod.downloads.transfer import Transfer
from pod.downloads.worker_pool import WorkerPool
from pod.net.content_range import ReplacedError
from pod.net.http import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pod.downloads.probe import DownloadTarget
    from pod.downloads.progress import Progress
    from pod.net.transfer_policy import TransferPolicy


class StoppedError(Exception):
    """The pod is stopping; what has arrived is kept."""


class Download:
    """Fetches a goal into its part. `room` gets the bytes needed before disk is used, and may refuse.

    `workers` are threads that all files share; without them it has TransferPolicy.connections for itself.
    """

    def __init__(
        self,
        goal: DownloadTarget,
        policy: TransferPolicy,
        progress: Progress,
        room: Callable[[int], None],
        workers: WorkerPool | None = None,
    ) -> None:
        self._goal = goal
        self._policy = policy
        self._progress = progress
        self._room = room
        self._workers = workers
        self._transfer: Transfer | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> None:
        """Fetch until the part is complete and its hash is right.

        A wrong hash is tried once more from nothing: a resumed file can be spoilt by what came before.
        Raises RefusedError, OSError, StoppedError.
        """
        if self._workers:
            self._verified(self._workers)
            return
        workers = WorkerPool(self._policy.connections - 1)
        try:
            self._verified(workers)
        finally:
            workers.end()

    def _verified(self, workers: WorkerPool) -> None:
        for last in (False, True):
            found = self._whole(workers)
            if found == self._goal.expected:
                return
            self._discard()
            self._progress.say(f"arrived as {found}, not {self._goal.expected}; fetched once more")
            if last:
                raise RefusedError(
                    f"has {found}, but {self._goal.expected} is listed; fetched twice, and thrown away: "
                    "it was replaced or tampered with at its source, or the listed hash is wrong"
                )

    def _discard(self) -> None:
        for each in (self._goal.part, self._goal.copy):
            if each:
                part_journal.remove(each)

    def stop(self) -> None:
        """Let `run` end soon, with StoppedError."""
        with self._lock:
            self._stopped = True
            if self._transfer:
                self._transfer.halt(StoppedError())

    def _whole(self, workers: WorkerPool) -> str:
        """Fetch what is missing, all of it when the source changed; returns the digest of what arrived."""
        mode = Mode.RANGES
        for _ in range(self._policy.tries):
            with self._lock:
                if self._stopped:
                    raise StoppedError
                transfer = self._transfer = Transfer(
                    self._goal, self._policy, self._progress, self._room, workers
                )
            self._progress.state = State.FETCHING
            try:
                return transfer.run(mode)
            except ReplacedError:
                self._discard()
                raise
            except ChangedError as change:
                mode = change.mode
                self._discard()
        reason = (
            "it changes while it is fetched"
            if mode is Mode.RANGES
            else "its server cannot resume, and the connection breaks"
        )
        raise RefusedError(
            f"did not come in {self._policy.tries} tries: {reason}; start the fetch again later"
        )
