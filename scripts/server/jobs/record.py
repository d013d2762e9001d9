"""A generation from its request until it is forgotten, in states that RunPod's API has the names of."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker.job_record import IN_PROGRESS, IN_QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.generation.request import Generation, Progress, Result


@dataclass(frozen=True)
class Failure:
    """Why a job has no result: a sentence, HTTP's status, the parameter that is wrong, OpenAI's code."""

    message: str
    status: int = 500
    parameter: str = ""
    code: str = ""


@dataclass(eq=False)
class Job:
    """One job.

    Attributes:
        id: What clients know it by; nobody can guess it.
        generation: What is asked for; None once it is over: media may be large.
        about: What its route remembers of the request.
        status: A state of worker/job_record.py.
        created, completed: Seconds since the epoch; 0 for not yet.
        result: What came of it.
        failure: Why nothing did.
        preview: The newest small picture.
        release: Called at its end: gives back what it takes of memory.
        stop: Set to have the model stop within a step.
        changed: Set at the next change: take it, then look at the job, then wait for it.
    """

    id: str
    generation: Generation | None = field(repr=False)
    about: dict[str, Any] = field(default_factory=dict)
    status: str = IN_QUEUE
    created: int = field(default_factory=lambda: int(time.time()))
    completed: int = 0
    result: Result | None = field(default=None, repr=False)
    failure: Failure | None = None
    progress: Progress | None = field(default=None, repr=False)
    preview: bytes | None = field(default=None, repr=False)
    release: Callable[[], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    submitted: float = field(default_factory=time.monotonic)
    begun: float | None = None
    ended: float | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.ended is not None

    @property
    def percent(self) -> int:
        """How far it is, 0 to 100; never 100 before it is over."""
        if self.over:
            return 100
        done = self.progress
        return min(99, int(100 * done.step / done.steps)) if done and done.steps > 0 else 0

    @property
    def kept(self) -> int:
        """Bytes of what came of it, and of the texts that its route remembers."""
        said = sum(len(each.encode()) for each in self.about.values() if isinstance(each, str))
        return said + (sum(len(each.content) for each in self.result.outputs) if self.result else 0)

    def begin(self) -> None:
        """It is its turn."""
        self.status, self.begun = IN_PROGRESS, time.monotonic()
        self.notify()

    def tell(self, progress: Progress) -> None:
        """Take how far it is."""
        if not self.over:
            self.progress = progress
            self.preview = progress.preview or self.preview
            self.notify()

    def end(self, status: str, result: Result | None = None, failure: Failure | None = None) -> None:
        """Take what came of it."""
        self.status, self.ended, self.completed = status, time.monotonic(), int(time.time())
        self.result, self.failure = result, failure
        self.generation, self.progress, self.preview = None, None, None
        if self.release:
            self.release()
            self.release = None
        self.notify()

    def notify(self) -> None:
        """Wake who waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def wait(self) -> None:
        """Wait until it has ended."""
        while not self.over:
            await self.changed.wait()
