"""A job as the clients of `serve` see it: the states and the names that RunPod's own API has for them.

Source: docs.runpod.io/serverless/endpoints/operation-reference and /job-states.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

IN_QUEUE: Final = "IN_QUEUE"
IN_PROGRESS: Final = "IN_PROGRESS"
COMPLETED: Final = "COMPLETED"
FAILED: Final = "FAILED"
CANCELLED: Final = "CANCELLED"
TIMED_OUT: Final = "TIMED_OUT"
_UNREAD: Final = 100  # messages of progress that are kept for who asks for them now and then
_TOO_LARGE: Final = "The answer of this job is larger than {most:g} MB: ask for fewer or smaller outputs."


@dataclass(eq=False)
class Job:
    """One job, from its request until it is forgotten.

    Args:
        id: What clients know it by; nobody can guess it.
        given: What a handler gets beside its id, until it ends.
        limit: Seconds that it may run.
        worker: What the platform calls this worker; "" for nothing.
    """

    id: str
    given: dict[str, Any] = field(repr=False)  # keys may be in it
    limit: float
    worker: str = ""
    status: str = IN_QUEUE
    created: float = field(default_factory=time.monotonic)
    begun: float | None = None
    ended: float | None = None
    progress: dict[str, Any] | None = None
    unread: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_UNREAD))
    task: asyncio.Task[None] | None = None
    final: bytes = field(default=b"", repr=False)
    """What came of it, as JSON; empty as long as nothing has."""
    release: Callable[[], None] | None = None
    """Called at its end: gives back what it takes of memory."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the next change: take it, then look at the job, then wait for it."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.ended is not None

    async def wait(self, seconds: float) -> None:
        """Wait until it has ended, so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.over:
                    await self.changed.wait()

    def begin(self) -> None:
        """It is ComfyUI's turn."""
        self.status, self.begun = IN_PROGRESS, time.monotonic()
        self.notify()

    def tell(self, message: dict[str, Any]) -> None:
        """Take how far it is."""
        if not self.over:
            self.progress = message
            self.unread.append(message)
            self.notify()

    def end(self, status: str, answer: dict[str, Any], most: int) -> None:
        """Take what came of it: what a handler answers. At most so many bytes of JSON can be passed on."""
        self.status, self.ended, self.given = status, time.monotonic(), {}
        self.progress = None
        if self.release:
            self.release()
            self.release = None
        self.final = encoded(self.public(answer=answer))
        if len(self.final) > most:
            self.status = FAILED
            self.final = encoded(self.public(answer={"error": _TOO_LARGE.format(most=most / 1e6)}))
        self.notify()

    def notify(self) -> None:
        """Wake who waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    def public(self, position: int = 0, answer: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return it as clients see it. `position`: its place among those that wait, from 1."""
        now = time.monotonic()
        said: dict[str, Any] = {"id": self.id, "status": self.status}
        if position:
            said["position"] = position
        said["delayTime"] = _milliseconds((self.begun or self.ended or now) - self.created)
        if self.begun:
            said["executionTime"] = _milliseconds((self.ended or now) - self.begun)
        if self.worker and self.begun:
            said["workerId"] = self.worker
        if answer is None:
            return {**said, "output": self.progress} if self.progress else said
        rest = {name: value for name, value in answer.items() if name not in ("error", "refresh_worker")}
        if "error" in answer:
            said["error"] = answer["error"]
        return {**said, "output": rest} if rest else said


def encoded(said: Any) -> bytes:
    """Return it as JSON, on one line."""
    return json.dumps(said).encode()


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
