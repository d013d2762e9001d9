"""Threads that fetch one file: a lead, helpers when the server has ranges, one to hash, one to flush.

The lead alone decides that a fetch has failed; on an error a helper releases its byte range and ends.
"""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from pod.downloads import probe
from pod.downloads.partial_file import ClosedError
from pod.downloads.probe import Requests, range_length
from pod.downloads.staging import copied
from pod.downloads.states import State
from pod.net.http import TransientError
from pod.net.integrity import BLOCK, digest
from pod.net.transfer_policy import StalledError, ThroughputMonitor, TransferBackoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pod.downloads.partial_file import ByteRange, PartialFile
    from pod.downloads.probe import Beginning, DownloadTarget, Mode
    from pod.downloads.progress import Progress
    from pod.downloads.worker_pool import WorkerPool
    from pod.net.http import Answer
    from pod.net.integrity import Block
    from pod.net.transfer_policy import TransferPolicy

_BUFFER = 512 * 1024
_REST = 10.0  # seconds until a hub that was busy is offered one more connection
_local = threading.local()


class Transfer:
    """One attempt at a file, continuing what earlier ones left. `room` is asked before disk is used."""

    def __init__(
        self,
        goal: DownloadTarget,
        policy: TransferPolicy,
        progress: Progress,
        room: Callable[[int], None],
        workers: WorkerPool,
    ) -> None:
        self._goal = goal
        self._policy = policy
        self._progress = progress
        self._room = room
        self._workers = workers
        self._part: PartialFile | None = None
        self._digest = ""
        self._requests = Requests(goal, policy)
        self._trouble: Exception | None = None
        self._lock = threading.Lock()
        self._helpers = policy.connections - 1
        self._rest_until = 0.0
        self._pace = 0.0  # bytes a second that a connection has been giving of late

    def run(self, mode: Mode) -> str:
        """Fetch what is missing and return the digest of the whole.

        Raises RefusedError, OSError, or ChangedError after which the part must be removed.
        """
        aside: list[threading.Thread] = []
        try:
            first = self._begin(mode)
            part = self._adopt(first)
            if part.contents.size > part.contents.chunk:
                aside = [self._start(lambda: self._hash(part)), self._start(part.keep_flushing)]
            with self._workers.on(self) if first.divisible else nullcontext():
                self._lead(part, first.span, first.answer)
            if self._trouble:
                raise ClosedError  # noqa: TRY301
            self._progress.state = State.VERIFYING
            part.flush()
            if not aside:
                self._hash(part)  # a small file: what a thread would do is done sooner than one begins
        except ClosedError:
            pass  # who closed it has said why
        except Exception as error:  # noqa: BLE001 (whatever it is, the helpers must stop before it is raised)
            self.halt(error)
        for thread in aside:
            thread.join()
        if self._trouble:
            raise self._trouble
        return self._digest

    def _start(self, task: Callable[[], None]) -> threading.Thread:
        """Run something in a thread; its failure stops the transfer."""

        def run() -> None:
            try:
                task()
            except ClosedError:
                pass
            except Exception as error:  # noqa: BLE001 (raised by `run` in the caller's thread)
                self.halt(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def halt(self, trouble: Exception) -> None:
        """Stop all threads, wherever they wait; `run` raises the first error."""
        with self._lock:
            self._trouble = self._trouble or trouble
        self._requests.halt()
        with self._lock:  # only now: a part that is adopted later finds that all is halted
            part = self._part
        if part:
            part.close()

    def _begin(self, mode: Mode) -> Beginning:
        """Ask for the first bytes until something comes."""
        patience = self._patience()
        while not self._requests.halted.is_set():
            try:
                return probe.begin(self._goal, self._policy, self._requests, mode, self._promise)
            except TransientError as error:
                patience.wait(error)
        raise ClosedError

    def _promise(self, received: int, size: int) -> None:
        self._progress.begin(received, size)
        self._room(size - received)

    def _adopt(self, first: Beginning) -> PartialFile:
        with self._lock:
            self._part = first.part
        if self._requests.halted.is_set():
            if first.answer:
                self._requests.drop(first.answer)
            raise ClosedError
        self._progress.begin(first.part.received, first.part.contents.size)
        return first.part

    def _lead(self, part: PartialFile, span: ByteRange | None, answer: Answer | None) -> None:
        """Fetch until all has arrived; an error stops the helpers at once."""
        patience = self._patience()
        try:
            while span or (
                span := part.take(range_length(self._policy, part.missing, part.contents.chunk), wait=True)
            ):
                try:
                    self._pull(part, span, patience, answer)
                    patience.moved(steadily=True)
                except TransientError as error:
                    if isinstance(error, StalledError):
                        self._progress.tell(f"{error}: dropped, and started again")
                    patience.wait(error)
                span = answer = None
        except Exception as error:  # noqa: BLE001 (raised by `run`)
            self.halt(error)

    def wants(self, helpers: int) -> bool:
        """Tell whether one more connection would help."""
        part = self._part
        if part is None or self._requests.halted.is_set() or not part.free:
            return False
        now = time.monotonic()
        if now >= self._rest_until and self._helpers < self._policy.connections - 1:
            self._helpers += 1
            self._rest_until = now + _REST
        return helpers < self._helpers

    def help(self) -> None:
        """Fetch a byte range as a helper; after an error fewer connections are used for a while."""
        part = self._part
        try:
            if part and (span := part.take(range_length(self._policy, part.missing, part.contents.chunk))):
                self._pull(part, span, None)
        except ClosedError:
            pass
        except TransientError as error:
            if isinstance(error, StalledError):
                self._progress.tell(f"{error}: dropped, and continued on another")
            else:
                self._helpers = max(0, self._helpers - 1)
                self._rest_until = time.monotonic() + (error.retry_after or _REST)
        except Exception as error:  # noqa: BLE001 (raised by `run` in the caller's thread)
            self.halt(error)

    def _pull(
        self,
        part: PartialFile,
        span: ByteRange,
        patience: TransferBackoff | None,
        answer: Answer | None = None,
    ) -> None:
        """Fetch a byte range; what was not received is released."""
        offset, chunk = span.start, part.contents.chunk
        view = _buffer()
        begun = time.monotonic()
        try:
            if answer is None:
                answer = self._requests.ask(span, part.contents.identity)
                probe.check_same(answer, span, part.contents)
            meter = ThroughputMonitor(self._policy, answer.host, lambda: self._pace)
            while offset < span.stop:
                edge = min((offset // chunk + 1) * chunk, span.stop)
                count = answer.receive(view[: edge - offset])
                if not count:
                    raise TransientError(f"{answer.host}: the connection closed before the end")
                part.write(offset, view[:count])
                offset += count
                self._progress.moved(part.received, part.contents.size)
                if offset == edge:
                    part.mark_complete((edge - 1) // chunk)
                meter.took(count)
                if patience:
                    patience.moved(steadily=meter.steady)
        finally:
            part.release(span, offset)
            if offset > span.start:
                self._pace += ((offset - span.start) / (time.monotonic() - begun) - self._pace) / 2
            if answer:
                self._requests.drop(answer)

    def _hash(self, part: PartialFile) -> None:
        blocks = _blocks(part)
        if self._goal.copy:
            blocks = copied(blocks, self._goal.copy, part.contents)
        self._digest = digest(blocks, part.contents.size, part.contents.expected)

    def _patience(self) -> TransferBackoff:
        return TransferBackoff(self._policy, self._requests.halted, self._progress.say)


def _buffer() -> memoryview:
    """Return this thread's own buffer: a new one for each span would cost more than the reading."""
    if not hasattr(_local, "view"):
        _local.view = memoryview(bytearray(_BUFFER))
    view: memoryview = _local.view
    return view


def _blocks(part: PartialFile) -> Iterator[Block]:
    """Read what has arrived, in order, while the rest still arrives. Raises OSError, ClosedError."""
    view = memoryview(bytearray(BLOCK))
    offset = 0
    while count := part.read(offset, view):
        yield view[:count]
        offset += count
