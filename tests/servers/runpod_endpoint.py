"""A RunPod endpoint for tests: as the worker's SDK sees it, and as a client does, with faults at will.

What it refuses the platform refuses; the source stands at each. [SDK]: runpod 1.12.0 (rp_job.py, rp_http.py,
rp_ping.py, http_client.py); [docs]: RunPod's documentation of endpoint operations, request limits and job
states; [issues]: 129 and 167 of worker-comfyui, whose results of more than 20 MB were answered 400.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

ENDPOINT, WORKER, KEY = "ep1", "worker-1", "rpa_KEY_OF_THE_TESTS"
LARGEST_RESULT = 20_000_000  # [issues]
LARGEST_RUN = 10 << 20  # [docs]; /runsync takes twice as much
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
_HELD = 2.0  # seconds that a poll is held open; the platform's 90 would make tests wait


@dataclass
class Job:
    """A job, as the platform knows it."""

    id: str
    body: dict[str, Any]
    status: str = "IN_QUEUE"
    output: Any = None
    error: str | None = None
    progress: list[Any] = field(default_factory=list)
    stops_worker: bool = False
    taken: float = 0.0  # when a worker got it, and when it had ended: seconds of time.monotonic
    ended: float = 0.0

    def shown(self) -> dict[str, Any]:
        """What /status answers [docs]."""
        found = {"id": self.id, "status": self.status, "delayTime": 1, "executionTime": 1, "workerId": WORKER}
        if self.output is not None:
            found["output"] = self.output
        return found if self.error is None else {**found, "error": self.error}


@dataclass
class Faults:
    """What goes wrong, by the call's name (`job-take`, `job-done`, `job-stop`, `ping`).

    `answers`: statuses, once each; `slow`: seconds before an answer; `cut`: how many connections are cut.
    """

    answers: dict[str, list[int]] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)


@dataclass
class Endpoint:
    """The endpoint, in a thread of its own. Use it as a context manager; `url` is its address."""

    faults: Faults = field(default_factory=Faults)
    jobs: dict[str, Job] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)  # ids that the worker is to be told
    calls: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # what was, a sentence each
    pings: list[dict[str, str]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    url: str = ""
    host: str = "127.0.0.1"  # where it listens

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def environment(self) -> dict[str, str]:
        """What the platform sets for a worker [SDK]."""
        base = f"{self.url}/v2/{ENDPOINT}"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=X",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=X",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=X",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?gpu=X",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_POD_ID": WORKER,
            "RUNPOD_AI_API_KEY": KEY,
            "RUNPOD_ENDPOINT_ID": ENDPOINT,
        }

    def submit(self, given: Any, **beside: Any) -> Job:
        """Queue a job."""
        job = Job(f"job-{next(self._numbers)}", {"input": given, **beside})
        self.jobs[job.id] = job
        return job

    def cancel(self, job: Job) -> None:
        """Cancel a job: one that runs is stopped in its worker."""
        if job.status == "IN_PROGRESS":
            self.stops.append(job.id)
        if job.status not in FINAL:
            job.status = "CANCELLED"

    @staticmethod
    def wait(true: Callable[[], Any], seconds: float = 30.0) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it has not come to be so"
            time.sleep(0.02)

    def end(self, job: Job, seconds: float = 30.0) -> dict[str, Any]:
        """Wait until a job has ended; returns what its client is shown."""
        self.wait(lambda: job.status in FINAL, seconds)
        return job.shown()

    # --- Serving

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        started.set()
        self._loop.run_forever()

    async def _end(self) -> None:
        await self._runner.cleanup()
        mine = asyncio.current_task()
        left = [task for task in asyncio.all_tasks() if task is not mine]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._faulty])
        worker, client = f"/v2/{ENDPOINT}", f"/client/{ENDPOINT}"
        app.router.add_get(f"{worker}/job-take/{{worker}}", self._take)
        app.router.add_get(f"{worker}/job-take-batch/{{worker}}", self._take_batch)
        app.router.add_get(f"{worker}/job-stop/{{worker}}", self._stop)
        app.router.add_post(f"{worker}/job-done/{{worker}}/{{job}}", self._done)
        app.router.add_get(f"{worker}/ping/{{worker}}", self._ping)
        app.router.add_post(f"{client}/{{how:run|runsync}}", self._run)
        app.router.add_get(f"{client}/status/{{job}}", self._status)
        app.router.add_post(f"{client}/cancel/{{job}}", self._cancel)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, 0)
        await site.start()
        server = site._server
        assert isinstance(server, asyncio.Server)
        self.url = f"http://{self.host}:{server.sockets[0].getsockname()[1]}"

    @web.middleware
    async def _faulty(self, request: web.Request, handler: Any) -> web.StreamResponse:
        name = request.path.split("/")[3]
        self.calls.append(name)
        if self.faults.cut.get(name):
            self.faults.cut[name] -= 1
            assert request.transport
            request.transport.abort()
        if statuses := self.faults.answers.get(name):
            return web.Response(status=statuses.pop(0))
        await asyncio.sleep(self.faults.slow.get(name, 0.0))
        bearer = f"Bearer {KEY}" if request.path.startswith("/client") else KEY  # [SDK]: without "Bearer"
        if request.headers.get("Authorization") != bearer:
            return self._refuse(401, f"{name}: the key is wrong")  # [docs]
        if request.match_info.get("worker", WORKER) != WORKER:
            return self._refuse(404, f"{name}: no such worker")  # [SDK]: $ID and $RUNPOD_POD_ID are filled in
        found: web.StreamResponse = await handler(request)
        return found

    def _refuse(self, status: int, said: str) -> web.Response:
        self.refused.append(said)
        return web.json_response({"error": said}, status=status)

    # --- The worker's side

    async def _taken(self, count: int) -> list[dict[str, Any]]:
        end = time.monotonic() + _HELD
        while time.monotonic() < end:
            if waiting := [each for each in self.jobs.values() if each.status == "IN_QUEUE"][:count]:
                for job in waiting:
                    job.status, job.taken = "IN_PROGRESS", time.monotonic()
                return [{"id": job.id, **job.body} for job in waiting]
            await asyncio.sleep(0.01)
        return []

    async def _take(self, request: web.Request) -> web.Response:
        if request.query.get("job_in_progress") not in ("0", "1"):  # [SDK]
            return self._refuse(400, "job-take: job_in_progress is missing")
        found = await self._taken(1)
        return web.json_response(found[0]) if found else web.Response(status=204)

    async def _take_batch(self, request: web.Request) -> web.Response:
        count = int(request.query["batch_size"])
        self.batches.append(count)
        if count < 2:  # [SDK]: one job is taken by job-take
            return self._refuse(400, "job-take-batch: a batch of one")
        found = await self._taken(count)
        return web.json_response(found) if found else web.Response(status=204)

    async def _stop(self, _: web.Request) -> web.Response:
        end = time.monotonic() + _HELD
        while time.monotonic() < end:
            if self.stops:
                told, self.stops = self.stops, []
                return web.json_response({"jobsToStop": told})
            await asyncio.sleep(0.01)
        return web.Response(status=204)

    async def _done(self, request: web.Request) -> web.Response:
        number = request.match_info["job"]
        job, data = self.jobs.get(number), await request.read()
        if job is None:
            return self._refuse(404, f"job-done: {number} is no job")  # [docs]
        if len(data) > LARGEST_RESULT:
            return self._refuse(400, f"job-done: {number} has a result of {len(data)} bytes")  # [issues]
        if request.headers.get("X-Request-ID") != number or request.query.get("isStream") != "false":
            return self._refuse(400, f"job-done: {number} without its X-Request-ID or isStream")  # [SDK]
        body = json.loads(data)
        if job.status in FINAL:  # [docs]: what has ended stays as it is
            self.refused.append(f"job-done: {number} has ended before")
            return web.Response()
        if body.get("status") == "IN_PROGRESS":
            job.progress.append(body["output"])
            job.output = body["output"]
            return web.Response()
        job.output, job.error = body.get("output"), body.get("error")
        job.stops_worker, job.ended = bool(body.get("stopPod")), time.monotonic()
        job.status = "FAILED" if job.error else "COMPLETED"
        return web.Response()

    async def _ping(self, request: web.Request) -> web.Response:
        self.pings.append(dict(request.query))
        return web.Response()

    # --- The client's side

    async def _run(self, request: web.Request) -> web.Response:
        how = request.match_info["how"]
        data = await request.read()
        if len(data) > LARGEST_RUN * (2 if how == "runsync" else 1):
            return self._refuse(400, f"{how}: exceeded max body size")  # [docs]
        body = json.loads(data)
        if "input" not in body:
            return self._refuse(400, f"{how}: input is missing")  # [docs]
        job = self.submit(body.pop("input"), **body)
        if how == "runsync":
            while job.status not in FINAL:  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0.01)
        return web.json_response(job.shown() if how == "runsync" else {"id": job.id, "status": job.status})

    async def _status(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["job"])
        if job is None:
            return self._refuse(404, "status: request does not exist")  # [docs]
        return web.json_response(job.shown())

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["job"])
        if job is None:
            return self._refuse(404, "cancel: request does not exist")  # [docs]
        self.cancel(job)
        return web.json_response(job.shown())
