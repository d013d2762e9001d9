"""The handler: a job as the platform gives it, in; its output as the platform takes it, out. It never raises.

Only a task that is cancelled ends without an answer: the platform has said that nobody waits for one. An
exception would reach the client with its traceback (rp_job.py of the runpod SDK 1.12.0).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pod.util.printable import printable, shown
from pod.util.secret_variables import hidden
from worker import job, messages, presets, request
from worker.errors import JobError
from worker.job_file import is_id
from worker.progress import INTERVAL, Reporter
from worker.termination import Termination

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from worker.job import Place
    from worker.job_file import JobFile
    from worker.presets import Presets

STOPPED: Final = (
    "The worker was stopped while this job ran, and the platform's grace was too short for it: send it again."
)
CRASHED: Final = "The worker was killed while this job ran, for lack of memory perhaps: its log says more."
_LAST_SECOND: Final = 1.0
"""Seconds that a job which is stopped has to leave ComfyUI in: what matters then is that it is answered."""


@dataclass(frozen=True)
class Worker:
    """What handles jobs.

    Args:
        place: Where they run.
        open_jobs: Where it is noted which are open.
        send: Sends a message of a job's progress to the platform; None where nobody takes any.
        termination: What SIGTERM does to them.
        refresh: End the worker after each job (REFRESH_WORKER).
        free: Let ComfyUI give its memory back after each job (REFRESH_WORKER=free).
        concurrency: Jobs at once (WORKER_CONCURRENCY).
        warm_up: The workflow to run before the first job, or the path of one (WARMUP_WORKFLOW).
        interval: Seconds between two messages of a job's progress.
        presets: What requests may name in the place of a workflow.
    """

    place: Place
    open_jobs: JobFile
    send: Callable[[dict[str, Any], dict[str, Any]], Awaitable[None]] | None = None
    termination: Termination = field(default_factory=Termination)
    refresh: bool = False
    free: bool = False
    concurrency: int = 1
    warm_up: str = ""
    interval: float = INTERVAL
    presets: Presets = presets.NONE

    async def handle(self, given: dict[str, Any]) -> dict[str, Any]:
        """Answer a job of the platform: an object with `id` and `input`."""
        number = str(given.get("id") or "")
        if not is_id(number):
            return {"error": "The job has no id that can be used."}
        begun = time.monotonic()
        log(number, "begun")
        self.open_jobs.begin(number)
        try:
            answer = await self._in_time(given)
        except asyncio.CancelledError:
            log(number, "cancelled", seconds=time.monotonic() - begun)
            raise
        finally:
            self.open_jobs.end(number)
        said = {name: len(each) for name, each in answer.items() if isinstance(each, list)}
        failed = {"error": answer["error"]} if "error" in answer else {}
        log(number, "failed" if failed else "done", seconds=time.monotonic() - begun, **said, **failed)
        return answer

    async def _in_time(self, given: dict[str, Any]) -> dict[str, Any]:
        """Answer a job, or end it when SIGTERM's grace is over."""
        task = asyncio.create_task(self._answer(given))
        over = asyncio.Event()
        end = asyncio.create_task(over.wait())
        try:
            with self.termination.ends(over.set):
                await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_LAST_SECOND)
            if over.is_set() and (not task.done() or task.cancelled()):
                return {"error": STOPPED}
            return task.result()
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        finally:
            end.cancel()

    async def _answer(self, given: dict[str, Any]) -> dict[str, Any]:
        asked, secrets = None, tuple[str, ...]()
        try:
            # In a thread: a path of a preset's file lies on a volume, which may hang.
            asked = await asyncio.to_thread(
                request.parse, given.get("input"), given.get("s3Config"), known=self.presets
            )
            secrets = asked.secrets
            async with Reporter(lambda message: self._report(given, message), self.interval) as reporter:
                answer = await job.run(
                    asked,
                    self.place,
                    reporter.tell,
                    lambda prompt_id: self.open_jobs.note(str(given["id"]), prompt_id),
                    str(given["id"]),
                )
            answer = {**answer, **asked.said}
        except JobError as error:
            answer = error.answer
        except Exception as bug:  # noqa: BLE001 - whatever it is, its traceback is not the client's
            trace = "".join(traceback.format_exception(bug))
            log(str(given["id"]), "bug", traceback=_without_secrets(trace, secrets))
            answer = {"error": messages.UNEXPECTED.format(reason=f"{type(bug).__name__}: {shown(bug)}")}
        for name in ("error", "errors", "details"):
            if name in answer:
                answer[name] = _without_secrets(answer[name], secrets)
        if self.free or (asked and asked.free):
            await job.free(self.place)
        if self.refresh or (asked and asked.refresh_worker):
            answer["refresh_worker"] = True
        return answer

    async def _report(self, given: dict[str, Any], message: dict[str, Any]) -> None:
        if self.send:
            await self.send(given, message)


def _without_secrets(said: Any, secrets: Collection[str]) -> Any:
    """Return a sentence, or a list of them, without the job's key and the secrets of the environment."""
    if isinstance(said, list):
        return [_without_secrets(each, secrets) for each in said]
    return hidden(str(said), os.environ, secrets)


def log(number: str, event: str, **about: Any) -> None:
    """Put a line of JSON on stderr: what became of a job."""
    figures = {name: round(each, 3) if isinstance(each, float) else each for name, each in about.items()}
    line = json.dumps({"job": printable(number), "event": event, **figures})
    print(hidden(line, os.environ), file=sys.stderr, flush=True)
