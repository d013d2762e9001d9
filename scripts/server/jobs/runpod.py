"""RunPod's jobs: `input` is the pipeline's own parameters, or `openai_route` with `openai_input`.

Answers have the form of podkiln's serverless worker, whichever of the two was sent: one client reads both.
"""

from __future__ import annotations

import asyncio
import json
import os
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pod.util import env
from pod.util.secret_variables import hidden
from server.generation.request import RequestError
from server.jobs import answer
from server.jobs.public import Public
from server.jobs.queue import BUG, FullError, Queue, StoppingError
from server.jobs.thread import OneThread
from server.requests import generations, openai, plain
from server.requests.errors import FieldError
from server.requests.form import Form
from server.requests.media import Reader
from worker import bucket, children, runpod_sdk, serve_settings
from worker.answer import LARGEST, OF_RUNPOD
from worker.errors import JobError
from worker.handler import STOPPED, log
from worker.job_file import JobFile
from worker.progress import INTERVAL, Reporter
from worker.s3 import Uploader
from worker.termination import Termination

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping

    from server.generation.request import Model, Output
    from server.jobs.record import Job
    from server.requests.draft import Draft
    from worker.bucket import Bucket

    Open = Callable[[Mapping[str, str], Callable[[str], None]], Model]

_FETCHED: Final = 200_000_000  # bytes of files that a job names by addresses
_JOB_SECONDS: Final = 86400.0  # the platform has a limit of its own
_WEEK: Final = 7 * 86400.0
_PRIVATE: Final = "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS"
_ROUTE, _INPUT = "openai_route", "openai_input"
_NO_INPUT: Final = 'The job has no "input" that is an object: send {"input": {"prompt": ...}}.'
_CANCELLED: Final = "The generation was cancelled."


def serve(open_model: Open, environ: MutableMapping[str, str]) -> None:
    """Load the model, and take jobs until SIGTERM. Raises PodError."""
    target = bucket.of_worker(environ)
    private = env.is_on(_PRIVATE, environ.get(_PRIVATE))
    seconds = env.seconds("SERVE_JOB_SECONDS", environ, _JOB_SECONDS, _WEEK)
    platform = runpod_sdk.connected(environ)  # what is missing is said before minutes of loading
    children.end_with_this()
    jobs = JobFile(Path(environ.get("PODKILN_LOCAL", "/var/lib/podkiln")) / "jobs.json")
    asyncio.run(runpod_sdk.fail_left(jobs.claim(), jobs, platform.send))
    thread = OneThread()
    model = asyncio.run(
        thread.call(lambda: open_model(environ, lambda phase: log("", "loading", phase=phase)))
    )
    queue = Queue(serve_settings.Settings(port=0, job_seconds=seconds, keep_seconds=0.0), thread)
    platform.start(Handler(Public(model), queue, target, jobs, private=private, send=platform.progress))


@dataclass
class Handler:
    """Answers a job of the platform; call it with one. It never raises.

    Attributes:
        model: What generates.
        queue: Its queue.
        bucket: Where results go, unless a job names one.
        open_jobs: Where it is noted which are open.
        private: Whether files may be at addresses that are not public, and a job's bucket too.
        send: Sends a message of a job's progress; None where nobody takes any.
        termination: What SIGTERM does.
        interval: Seconds between two messages of a job's progress.
    """

    model: Model
    queue: Queue
    bucket: Bucket | None
    open_jobs: JobFile
    private: bool = False
    send: Callable[[dict[str, Any], dict[str, Any]], Awaitable[None]] | None = None
    termination: Termination = field(default_factory=Termination)
    interval: float = INTERVAL

    async def __call__(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return a job's output."""
        number = str(given.get("id") or "")
        log(number, "begun")
        self.open_jobs.begin(number)
        secrets: tuple[str, ...] = ()
        try:
            target = bucket.of_job(given.get("s3Config"))
            secrets = (target.key_id, target.secret) if target else ()
            said = await self._answer(given, number, target or self.bucket)
        except (JobError, RequestError) as error:
            said = {"error": str(error)}
        except (FullError, StoppingError) as error:
            said = {"error": str(error)}
        except Exception as bug:  # noqa: BLE001 - whatever it is, its traceback is not the client's
            trace = "".join(traceback.format_exception(bug))
            log(number, "bug", traceback=hidden(trace, os.environ, secrets))
            said = {"error": BUG}
        finally:
            self.open_jobs.end(number)
        if "error" in said:
            said["error"] = hidden(str(said["error"]), os.environ, secrets)
        if self.queue.broken.is_set():
            said["refresh_worker"] = True  # the platform starts another one
        failed = {"error": said["error"]} if "error" in said else {}
        log(number, "failed" if failed else "done", **failed)
        return said

    async def _answer(self, given: dict[str, Any], number: str, target: Bucket | None) -> dict[str, Any]:
        """Return what came of a job. Raises JobError, RequestError, FullError, StoppingError."""
        draft = _read(given.get("input"), self.model)
        reader = Reader(_FETCHED, private=self.private)
        generation = await generations.made(draft, self.model, reader)
        job = self.queue.submit(self.model, generation)
        try:
            async with Reporter(lambda message: self._report(given, message), self.interval) as reporter:
                await self._over(job, reporter)
        except asyncio.CancelledError:
            self.queue.cancel(job)  # nobody waits for it
            raise
        self.queue.forget(job.id)
        if job.result is None:
            raise JobError(job.failure.message if job.failure else _CANCELLED)
        return await self._stored(job, number, target)

    async def _over(self, job: Job, reporter: Reporter) -> None:
        """Wait for a job and tell how far it is; end it when SIGTERM's grace is over. Raises JobError."""
        ended = asyncio.Event()

        def end() -> None:
            ended.set()
            self.queue.cancel(job)

        with self.termination.ends(end):
            while not job.over:
                changed = job.changed
                if done := job.progress:
                    reporter.tell(
                        {
                            "type": "progress",
                            "percent": job.percent,
                            "node": None,
                            "value": done.step,
                            "max": done.steps,
                        }
                    )
                await changed.wait()
        if ended.is_set() and job.result is None:
            raise JobError(STOPPED)

    async def _report(self, given: dict[str, Any], message: dict[str, Any]) -> None:
        if self.send:
            await self.send(given, message)

    async def _stored(self, job: Job, number: str, target: Bucket | None) -> dict[str, Any]:
        """Return the answer, with results in a bucket where there is one. Raises JobError."""
        result = job.result
        if result is None:
            raise AssertionError  # who calls has looked
        if target is None:
            if answer.encoded_size(result) > LARGEST:
                raise JobError(
                    f"The results of this job are larger than {LARGEST / 1e6:g} MB as base64, {OF_RUNPOD}: "
                    "ask for fewer or smaller outputs, or give the worker a bucket (BUCKET_ENDPOINT_URL)."
                )
            return answer.output(result, self.model.info)
        links: list[str] = []
        async with Uploader(target, private=self.private) as uploader:
            for place, each in enumerate(result.outputs):
                key = target.key(number, "", answer.filename(place, each))
                links.append(await uploader.put(key, each.mime, _once(each)))
        return answer.output(result, self.model.info, lambda place, _: (answer.S3, links[place]))


def _read(given: Any, model: Model) -> Draft:
    """Read a job's input: an object, or a text that is one as JSON. Raises JobError, RequestError."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = None
    if not isinstance(given, dict):
        raise JobError(_NO_INPUT)
    if _ROUTE not in given:
        rest = {name: value for name, value in given.items() if name != "refresh_worker"}
        return plain.read(Form(rest), model.info)
    reader = openai.ROUTES.get(str(given[_ROUTE]))
    if reader is None:
        routes = ", ".join(openai.ROUTES)
        raise FieldError(f"{_ROUTE} is none that generates: give one of {routes}.", _ROUTE)
    asked = given.get(_INPUT)
    if not isinstance(asked, dict):
        raise FieldError(f"{_INPUT} is not an object: it holds the fields of {given[_ROUTE]}.", _INPUT)
    draft = reader(Form(asked), model.info).draft
    draft.previews = False
    return draft


async def _once(output: Output) -> AsyncIterator[bytes]:
    yield output.content
