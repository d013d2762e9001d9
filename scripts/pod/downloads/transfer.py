"""Who fetches one file: a lead, helpers when the server knows ranges, one that hashes, one that flushes.

The lead alone decides that a fetch has failed; a helper that meets trouble gives its bytes back and goes.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING

from pod.downloads.partial_file import ByteRange, ClosedError, PartialFile, PartMetadata
from pod.downloads.staging import copied
from pod.downloads.states import State
from pod.net import content_range
from pod.net.content_range import PARTIAL, UNSATISFIABLE
from pod.net.http import Answer, RefusedError, TransientError
from pod.net.integrity import BLOCK, Block, check_type, digest
from pod.net.transfer_policy import StalledError, ThroughputMonitor, TransferBackoff, TransferPolicy
from pod.util.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pod.downloads.progress import Progress
    from pod.downloads.worker_pool import WorkerPool
    from pod.net.hubs import Request

_BUFFER = 512 * 1024
MAX_RANGE_CHUNKS = 16  # chunks: long enough that requests cost nothing, short enough to share out the end
_REST = 10.0  # seconds until a hub that was busy is offered one more connection
_local = threading.local()


class ChangedError(Exception):
    """What arrived must not be mixed with what is sent now; `ranges`: whether the server knows them."""

    def __init__(self, *, ranges: bool) -> None:
        super().__init__()
        self.ranges = ranges


@dataclass(frozen=True)
class DownloadTarget:
    """One file to be had: `expected` is `sha256:…` or `git:…`, `size` in bytes; it grows at `part`.

    `copy` is where the pass that hashes it also writes it, when it grows on another disk.
    """

    name: str
    part: Path
    request: Request
    expected: str
    size: int | None
    copy: Path | None = None


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
        self._halted = threading.Event()
        self._trouble: Exception | None = None
        self._answers: set[Answer] = set()
        self._lock = threading.Lock()
        self._helpers = policy.connections - 1
        self._rest_until = 0.0
        self._pace = 0.0  # bytes a second that a connection has been giving of late

    def run(self, *, ranges: bool) -> str:
        """Fetch what is missing and return the digest of the whole.

        Raises RefusedError, OSError, or ChangedError after which the part must be removed.
        """
        aside: list[threading.Thread] = []
        try:
            part, span, answer = self._begin(ranges=ranges)
            if part.contents.size > part.contents.chunk:
                aside = [self._start(lambda: self._hash(part)), self._start(part.keep_flushing)]
            if answer is None or answer.status == PARTIAL:
                with self._workers.on(self):
                    self._lead(part, span, answer)
            else:
                self._lead(part, span, answer)
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
        """Do something beside; its trouble is everybody's."""

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
        """Stop all threads, wherever they wait; `run` raises the first trouble."""
        with self._lock:
            self._trouble = self._trouble or trouble
            self._halted.set()
            answers = list(self._answers)
            part = self._part
        if part:
            part.close()
        for answer in answers:
            answer.abort()

    # --- the first request

    def _begin(self, *, ranges: bool) -> tuple[PartialFile, ByteRange | None, Answer | None]:
        """Find out what there is to fetch, with a request that already fetches."""
        patience = self._patience()
        while not self._halted.is_set():
            try:
                return self._first(PartialFile.recall(self._goal.part) if ranges else None, ranges=ranges)
            except TransientError as error:
                patience.wait(error)
        raise ClosedError

    def _first(
        self, part: PartialFile | None, *, ranges: bool
    ) -> tuple[PartialFile, ByteRange | None, Answer | None]:
        goal, policy = self._goal, self._policy
        if part and part.contents.expected != goal.expected:
            part = None
        if part and not part.missing:
            return self._adopt(part), None, None
        length = self._span_length(part.missing if part else goal.size or 0, policy.chunk)
        span = part.take(length) if part else ByteRange(0, length)
        answer = self._ask(span if ranges else None, part.contents.identity if part else "")
        try:
            contents = self._contents(answer, part.contents.chunk if part else policy.chunk, ranges=ranges)
            if answer.status == PARTIAL and span and content_range.start(answer) != span.start:
                raise ChangedError(ranges=True)  # noqa: TRY301 (not the bytes that were asked for)
            if part and contents == part.contents and answer.status == PARTIAL:
                self._progress.begin(part.received, contents.size)
                self._room(part.missing)
                return self._adopt(part), span, answer
            if span and span.start and answer.status == PARTIAL:
                raise ChangedError(ranges=True)  # noqa: TRY301 (another file now, and not from its start)
            self._progress.begin(0, contents.size)
            self._room(contents.size)
            part = PartialFile.create(goal.part, contents)
            length = length if answer.status == PARTIAL else contents.size
            return self._adopt(part), part.take(length), answer
        except BaseException:
            self._drop(answer)
            raise

    def _adopt(self, part: PartialFile) -> PartialFile:
        with self._lock:
            self._part = part
            if self._halted.is_set():
                raise ClosedError
        self._progress.begin(part.received, part.contents.size)
        return part

    def _contents(self, answer: Answer, chunk: int, *, ranges: bool) -> PartMetadata:
        """Read from the first answer what the file is; refuse at once what cannot be the one we want."""
        goal = self._goal
        if answer.status == UNSATISFIABLE:
            if (answer.headers["Content-Range"] or "").strip() == "bytes */0":
                raise RefusedError("is empty at its source; correct its source")
            raise ChangedError(ranges=ranges)  # shorter than what we have of it
        check_type(answer.headers["Content-Type"], goal.name, answer.host)
        linked = (answer.first("X-Linked-Etag") or "").strip('"')
        if goal.expected.startswith("sha256:") and re.fullmatch(r"[0-9a-f]{64}", linked):
            content_range.compare(f"sha256:{linked}", goal.expected)
        size = content_range.size(answer) or goal.size
        if size is None:
            raise RefusedError(f"cannot be checked: {answer.host} does not say how many bytes it has")
        content_range.compare(f"{size} bytes", f"{goal.size or size} bytes")
        return PartMetadata(size, chunk, content_range.identity(answer), goal.expected)

    # --- all the others

    def _lead(self, part: PartialFile, span: ByteRange | None, answer: Answer | None) -> None:
        """Fetch until all has arrived, by whomever; trouble halts the helpers at once."""
        patience = self._patience()
        try:
            while span or (
                span := part.take(self._span_length(part.missing, part.contents.chunk), wait=True)
            ):
                try:
                    self._pull(part, span, patience, answer)
                    patience.moved(steadily=True)
                except TransientError as error:
                    if isinstance(error, StalledError):
                        self._progress.tell(f"{error}: dropped, and begun anew")
                    patience.wait(error)
                span = answer = None
        except Exception as error:  # noqa: BLE001 (raised by `run`)
            self.halt(error)

    def wants(self, helpers: int) -> bool:
        """Tell whether one more connection would help."""
        part = self._part
        if part is None or self._halted.is_set() or not part.free:
            return False
        now = time.monotonic()
        if now >= self._rest_until and self._helpers < self._policy.connections - 1:
            self._helpers += 1
            self._rest_until = now + _REST
        return helpers < self._helpers

    def help(self) -> None:
        """Fetch a span, as one of several; trouble means fewer connections for a while."""
        part = self._part
        try:
            if part and (span := part.take(self._span_length(part.missing, part.contents.chunk))):
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
        """Fetch a span; what could not be had of it is given back."""
        offset, chunk = span.start, part.contents.chunk
        view = _buffer()
        begun = time.monotonic()
        try:
            if answer is None:
                answer = self._ask(span, part.contents.identity)
                self._same(answer, span, part.contents)
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
                self._drop(answer)

    def _same(self, answer: Answer, span: ByteRange, contents: PartMetadata) -> None:
        """Make sure that an answer continues what we have. Raises ChangedError."""
        same = content_range.identity(answer) == contents.identity
        if answer.status != PARTIAL:
            raise ChangedError(ranges=not same)
        if (
            not same
            or content_range.size(answer) != contents.size
            or content_range.start(answer) != span.start
        ):
            raise ChangedError(ranges=True)

    def _ask(self, span: ByteRange | None, identity: str) -> Answer:
        headers = {"Range": f"bytes={span.start}-{span.stop - 1}"} if span else {}
        if identity.startswith('"'):  # a strong ETag of the server that sends the bytes
            headers["If-Range"] = identity
        answer = self._goal.request.send(self._policy.limits, headers)
        with self._lock:
            if not self._halted.is_set():
                self._answers.add(answer)
                return answer
        answer.close()
        raise ClosedError

    def _drop(self, answer: Answer) -> None:
        with self._lock:
            self._answers.discard(answer)
        answer.close()

    def _hash(self, part: PartialFile) -> None:
        blocks = _blocks(part)
        if self._goal.copy:
            blocks = copied(blocks, self._goal.copy, part.contents)
        self._digest = digest(blocks, part.contents.size, part.contents.expected)

    def _patience(self) -> TransferBackoff:
        return TransferBackoff(self._policy, self._halted, self._progress.say)

    def _span_length(self, missing: int, chunk: int) -> int:
        """Bytes to ask for at once: a fair share, so that no connection is left with a long end."""
        share = missing // (2 * self._policy.connections)
        return max(chunk, min(share, MAX_RANGE_CHUNKS * chunk))


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
