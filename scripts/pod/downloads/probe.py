"""The first request for a file, which already fetches: what there is to fetch, and what of it has arrived."""

from __future__ import annotations

import re
import threading
from enum import Enum
from typing import TYPE_CHECKING

from pod.downloads.part_journal import PartMetadata
from pod.downloads.partial_file import ByteRange, ClosedError, PartialFile
from pod.net import content_range
from pod.net.content_range import PARTIAL, UNSATISFIABLE
from pod.net.http import RefusedError
from pod.net.integrity import check_type
from pod.util.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pod.net.http import Answer
    from pod.net.hubs import Request
    from pod.net.transfer_policy import TransferPolicy

MAX_RANGE_CHUNKS = 16  # chunks: long enough that requests cost nothing, short enough to share out the end


_STRONG = re.compile(r'"[!#-~\x80-\xff]*"')  # an ETag: RFC 9110, 8.8.3


class Mode(Enum):
    """How a file is asked for."""

    RANGES = "in ranges"
    WHOLE = "as a whole"  # of a server that knows no ranges


class ChangedError(Exception):
    """What arrived must not be mixed with what is sent now; `mode` is how to ask when it is begun anew."""

    def __init__(self, mode: Mode) -> None:
        super().__init__()
        self.mode = mode


@dataclass(frozen=True)
class DownloadTarget:
    """One file to fetch: `expected` is `sha256:…` or `git:…`, `size` in bytes; it grows at `part`.

    `copy` is where the pass that hashes it also writes it, when it grows on another disk.
    """

    name: str
    part: Path
    request: Request
    expected: str
    size: int | None
    copy: Path | None = None


class Requests:
    """The requests for one file that are under way, until all are halted."""

    def __init__(self, goal: DownloadTarget, policy: TransferPolicy) -> None:
        self._goal = goal
        self._policy = policy
        self._answers: set[Answer] = set()
        self._lock = threading.Lock()
        self.halted = threading.Event()

    def ask(self, span: ByteRange | None, identity: str) -> Answer:
        """Ask for some bytes, or all. Raises TransientError, RefusedError, and ClosedError once halted."""
        headers = {"Range": f"bytes={span.start}-{span.stop - 1}"} if span else {}
        if _STRONG.fullmatch(identity):  # of the server that sends the bytes
            headers["If-Range"] = identity
        answer = self._goal.request.send(self._policy.limits, headers)
        with self._lock:
            if not self.halted.is_set():
                self._answers.add(answer)
                return answer
        answer.close()
        raise ClosedError

    def drop(self, answer: Answer) -> None:
        """Let go of an answer, read or not."""
        with self._lock:
            self._answers.discard(answer)
        answer.close()

    def halt(self) -> None:
        """Abort all of them, wherever their readers wait; no further one is made."""
        with self._lock:
            self.halted.set()
            answers = list(self._answers)
        for answer in answers:
            answer.abort()


@dataclass(frozen=True, eq=False)
class Beginning:
    """A part, and the answer that brings its first missing bytes; without one, all of it has arrived."""

    part: PartialFile
    span: ByteRange | None = None
    answer: Answer | None = None

    @property
    def divisible(self) -> bool:
        """Whether several connections can fetch it."""
        return self.answer is None or self.answer.status == PARTIAL


def begin(
    goal: DownloadTarget,
    policy: TransferPolicy,
    requests: Requests,
    mode: Mode,
    promise: Callable[[int, int], None],
) -> Beginning:
    """Find out what there is to fetch.

    `promise` gets the bytes that have arrived and the size before disk is used, and may refuse. Raises
    TransientError, RefusedError, OSError, and ChangedError after which the part must be removed.
    """
    part = PartialFile.recall(goal.part) if mode is Mode.RANGES else None
    if part and (part.contents.expected, part.contents.size) != (
        goal.expected,
        goal.size or part.contents.size,
    ):
        part = None
    if part and not part.missing:
        return Beginning(part)
    length = range_length(policy, part.missing if part else goal.size or 0, policy.chunk)
    span = part.take(length) if part else ByteRange(0, length)
    answer = requests.ask(span if mode is Mode.RANGES else None, part.contents.identity if part else "")
    try:
        contents = _contents(goal, answer, part.contents.chunk if part else policy.chunk, mode)
        partial = answer.status == PARTIAL
        if partial and span and content_range.start(answer) != span.start:
            raise ChangedError(Mode.RANGES)  # noqa: TRY301 (not the bytes that were asked for)
        if part and contents == part.contents and partial:
            promise(part.received, contents.size)
            return Beginning(part, span, answer)
        if partial and span and span.start:
            raise ChangedError(Mode.RANGES)  # noqa: TRY301 (another file now, and not from its start)
        promise(0, contents.size)
        part = PartialFile.create(goal.part, contents)
        return Beginning(part, part.take(length if partial else contents.size), answer)
    except BaseException:
        requests.drop(answer)
        raise


def _contents(goal: DownloadTarget, answer: Answer, chunk: int, mode: Mode) -> PartMetadata:
    """Read from the first answer what the file is; refuse at once what cannot be the one we want."""
    if answer.status == UNSATISFIABLE:
        if (answer.headers["Content-Range"] or "").strip() == "bytes */0":
            raise RefusedError("is empty at its source; correct its source")
        raise ChangedError(mode)  # shorter than what we have of it
    check_type(answer.headers["Content-Type"], goal.name, answer.host)
    linked = content_range.linked_sha256(answer)
    if linked and goal.expected.startswith("sha256:"):
        content_range.compare(f"sha256:{linked}", goal.expected)
    size = content_range.size(answer) or goal.size
    if size is None:
        raise RefusedError(f"cannot be checked: {answer.host} does not say how many bytes it has")
    content_range.compare(f"{size} bytes", f"{goal.size or size} bytes")
    return PartMetadata(size, chunk, content_range.identity(answer), goal.expected)


def check_same(answer: Answer, span: ByteRange, contents: PartMetadata) -> None:
    """Make sure that an answer continues what we have. Raises ChangedError."""
    same = content_range.identity(answer) == contents.identity
    if answer.status != PARTIAL:
        raise ChangedError(Mode.WHOLE if same else Mode.RANGES)
    if not same or content_range.size(answer) != contents.size or content_range.start(answer) != span.start:
        raise ChangedError(Mode.RANGES)


def range_length(policy: TransferPolicy, missing: int, chunk: int) -> int:
    """Bytes to ask for at once: a fair share, so that no connection is left with a long end.

    A part may be kept in smaller chunks than ours, which must not make requests small.
    """
    share = missing // (2 * policy.connections)
    least = max(chunk, policy.chunk)
    return max(least, min(share, MAX_RANGE_CHUNKS * least))
