"""The requests of `serve`, one by one: RunPod's API for one worker, and what probes ask."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from aiohttp import web

from pod.services import ping_config
from pod.supervisor.ping_server import FAILING, SERVING
from worker import http_body, job_record, openapi, presets
from worker.errors import JobError
from worker.event_stream import follow
from worker.handler import log
from worker.http_errors import HttpError
from worker.job_file import is_id
from worker.openapi import ROUTES, Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from worker.http_access import Access
    from worker.job_queue import JobQueue
    from worker.job_record import Job
    from worker.presets import Presets
    from worker.readiness import Readiness
    from worker.serve_settings import Settings

_MEMORY: Final = 20  # times the largest request: bodies that come in, wait and run
_ANSWER_SECONDS: Final = 120.0  # that a client may take to read what it asked for
_SHORTEST_WAIT, _SHORTEST_JOB = 1.0, 5.0  # seconds; RunPod's own
_OF_JOB: Final = ("input", "s3Config")
_EVENTS: Final = "text/event-stream"
_PREFIX: Final = "v2"  # of RunPod's addresses: /v2/ENDPOINT/run
_BUG: Final = "An internal error of podkiln: its log says more."
_STOPPING: Final = "The worker is being stopped: send the request again, to another one."
_PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


class Api:
    """Answers requests; call it with one. It never raises, but where the client has gone."""

    def __init__(
        self, settings: Settings, queue: JobQueue, readiness: Readiness, access: Access, known: Presets
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._readiness = readiness
        self._access = access
        self._presets = known
        self._memory = http_body.Memory(_MEMORY * settings.request_bytes)
        self._answers: dict[str, Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]] = {
            "run": self._run,
            "runsync": self._runsync,
            "purge-queue": self._purge,
            "health": self._health,
            "ping": self._ping,
            "ready": self._ready,
            "schema": self._schema,
            "openapi.json": self._openapi,
            "docs": self._docs,
        }
        self._of_job: dict[str, Callable[[web.BaseRequest, Job, bool], Awaitable[web.StreamResponse]]] = {
            "status": self._status,
            "stream": self._stream,
            "cancel": self._cancel,
        }

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        return await self._answered(request, self._answer)

    async def probe(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request at the port of probes, where there is nothing else."""
        return await self._answered(request, self._answer_probe)

    async def _answered(
        self,
        request: web.BaseRequest,
        answers: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        try:
            answer = await answers(request)
        except HttpError as error:
            answer = refusal(error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as bug:  # noqa: BLE001 - whatever it is, its traceback is not the client's
            log("", "bug", traceback="".join(traceback.format_exception(bug)))
            if request.writer.output_size > 0:  # events have been sent: a second answer cannot be
                raise ConnectionError from None
            answer = refusal(HttpError(500, _BUG))
        if not request.content.is_eof():
            answer.force_close()  # the rest of the body is not waited for
        await send(request, answer)
        return answer

    async def _answer_probe(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path not in (self._settings.health_path, ping_config.PATH):
            raise HttpError(404, f"Only {self._settings.health_path} is answered at this port.")
        return await self._ping(request)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method in ("GET", "HEAD") and request.path == self._settings.health_path:
            return await self._ping(request)
        route, number, runpods = _matched(request)
        if route.is_open:
            return await self._answers[route.name](request)
        self._access.check(request)
        if not route.of_job:
            return await self._answers[route.name](request)
        job = self._queue.find(number) if is_id(number) else None
        if job is None:
            raise HttpError(404, "There is no such job, or what came of it is no longer kept.")
        return await self._of_job[route.name](request, job, runpods)

    async def _submit(self, request: web.BaseRequest, prefix: str = "") -> Job:
        self._check_room()  # before a large body comes, too
        given, size = await http_body.read_json(request, self._settings.request_bytes, self._memory)
        try:
            job = self._queued(given, prefix)
        except BaseException:
            self._memory.give(size)
            raise
        job.release = lambda: self._memory.give(size)
        return job

    def _queued(self, given: dict[str, Any], prefix: str) -> Job:
        if "input" not in given:
            raise HttpError(400, 'The body has no "input": send {"input": {"workflow": ...}}.')
        limit = _limit(given, self._settings.job_seconds)
        self._check_room()  # others may have come meanwhile
        # As the platform gives a job to its workers.
        return self._queue.submit({name: given[name] for name in _OF_JOB if name in given}, limit, prefix)

    def _check_room(self) -> None:
        if self._queue.stopping:
            raise HttpError(503, _STOPPING)
        if self._queue.full:
            pause = str(self._queue.pause)
            raise HttpError(
                429, "As many jobs wait as may wait here: try again later.", {"Retry-After": pause}
            )

    async def _run(self, request: web.BaseRequest) -> web.StreamResponse:
        job = await self._submit(request)
        return _json({"id": job.id, "status": job_record.IN_QUEUE})

    async def _runsync(self, request: web.BaseRequest) -> web.StreamResponse:
        wait = _wait(request, self._settings)
        job = await self._submit(request, "sync-")
        if _EVENTS in request.headers.get("Accept", ""):
            return await follow(request, job, self._queue.public)
        await job.wait(wait)
        if job.over:
            self._queue.delivered(job)
        return raw(self._queue.public(job))

    async def _status(self, _request: web.BaseRequest, job: Job, _runpods: bool) -> web.StreamResponse:
        return raw(self._queue.public(job))

    async def _stream(self, request: web.BaseRequest, job: Job, runpods: bool) -> web.StreamResponse:
        accepts = request.headers.get("Accept", "*/*")
        # RunPod's client library says that it takes anything, and takes JSON.
        if _EVENTS in accepts or not (runpods or "application/json" in accepts):
            return await follow(request, job, self._queue.public)
        stream = [{"output": message} for message in job.unread]
        job.unread.clear()
        return _json({"status": job.status, "stream": stream})

    async def _cancel(self, _request: web.BaseRequest, job: Job, _runpods: bool) -> web.StreamResponse:
        self._queue.cancel(job)
        return _json({"id": job.id, "status": job.status})

    async def _purge(self, _request: web.BaseRequest) -> web.StreamResponse:
        return _json({"removed": self._queue.purge(), "status": "completed"})

    async def _health(self, _request: web.BaseRequest) -> web.StreamResponse:
        jobs = self._queue.counts()
        serves = self._readiness.status == SERVING
        running = bool(serves and jobs["inProgress"])
        workers = {
            "idle": int(serves and not running),
            "initializing": int(not serves),
            "running": int(running),
        }
        return _json({"jobs": jobs, "workers": workers})

    async def _ping(self, _request: web.BaseRequest) -> web.StreamResponse:
        status = FAILING if self._queue.stopping else self._readiness.status
        return web.Response(status=status, headers=headers())

    async def _ready(self, _request: web.BaseRequest) -> web.StreamResponse:
        self._check_ready()
        return _json({"status": "ready"})

    def _check_ready(self) -> None:
        if self._queue.stopping:
            raise HttpError(503, _STOPPING)
        if self._readiness.status != SERVING:
            raise HttpError(503, "ComfyUI does not serve.")
        if self._queue.full:
            raise HttpError(503, "As many jobs wait as may wait here.")

    async def _schema(self, request: web.BaseRequest) -> web.StreamResponse:
        known = self._presets
        if not (name := request.query.get("preset")):
            return _json({each.id: presets.schema(each) for each in known.known.values()})
        try:
            chosen = known.meant({presets.KEY: name})
        except JobError as error:
            raise HttpError(404, str(error)) from None
        return _json(presets.schema(chosen) if chosen else {})

    async def _openapi(self, _request: web.BaseRequest) -> web.StreamResponse:
        return _json(openapi.document())

    async def _docs(self, _request: web.BaseRequest) -> web.StreamResponse:
        policy = {"Content-Security-Policy": _PAGE_POLICY}
        return web.Response(text=openapi.page(), content_type="text/html", headers={**headers(), **policy})


def refusal(error: HttpError) -> web.Response:
    """Return the answer to a request that is refused."""
    answer = _json({"error": str(error)}, error.status)
    answer.headers.update(error.headers)
    return answer


def _matched(request: web.BaseRequest) -> tuple[Route, str, bool]:
    """Return what is asked for, the id in its path, and whether by an address like RunPod's."""
    parts = request.path.strip("/").split("/")
    runpods = parts[0] == _PREFIX and len(parts) > 2  # noqa: PLR2004 - /v2/ENDPOINT/...
    name, *rest = parts[2:] if runpods else parts
    found = [each for each in ROUTES if each.name == name and len(rest) == int(each.of_job)]
    if not found:
        raise HttpError(404, "There is no such address here: /docs shows which there are.")
    method = "GET" if request.method == "HEAD" else request.method
    if method != found[0].method:
        allowed = found[0].method
        raise HttpError(405, f"This address is asked with {allowed}.", headers={"Allow": allowed})
    return found[0], rest[0] if rest else "", runpods


def _wait(request: web.BaseRequest, settings: Settings) -> float:
    """Return how many seconds /runsync waits."""
    given = parse_qs(request.query_string).get("wait")
    if not given:
        return settings.wait_seconds
    if not (given[0].isascii() and given[0].isdigit() and len(given[0]) < 10):  # noqa: PLR2004 - twelve days
        raise HttpError(400, "wait is not a number of milliseconds.")
    return min(max(int(given[0]) / 1000, _SHORTEST_WAIT), settings.longest_wait)


def _limit(given: dict[str, Any], most: float) -> float:
    """Return how many seconds a job may run."""
    policy = given.get("policy")
    asked = policy.get("executionTimeout") if isinstance(policy, dict) else None
    if asked is None:
        return most
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not asked >= 1000 * _SHORTEST_JOB:
        raise HttpError(400, "policy.executionTimeout is not a number of milliseconds from 5000 on.")
    return min(asked / 1000, most)


async def send(request: web.BaseRequest, answer: web.StreamResponse) -> None:
    """Send an answer; who does not read it is cut off."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await answer.prepare(request)
            await answer.write_eof()
    except TimeoutError:
        if request.transport:
            request.transport.abort()
        raise ConnectionError from None


def headers() -> dict[str, str]:
    """Return the headers of each answer."""
    return {"Cache-Control": "no-store", "Server": "podkiln", "X-Content-Type-Options": "nosniff"}


def _json(said: Any, status: int = 200) -> web.Response:
    return raw(job_record.encoded(said), status)


def raw(body: bytes, status: int = 200) -> web.Response:
    """Return an answer of JSON."""
    return web.Response(status=status, body=body, content_type="application/json", headers=headers())
