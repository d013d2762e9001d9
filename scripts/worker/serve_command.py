"""`/opt/venv/bin/python -I /opt/podkiln serve`: this pod's ComfyUI behind HTTP, with RunPod's names for jobs.

For RunPod's load-balancing endpoints, for vast.ai and Salad, and for a machine of one's own.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.util.printable import shown
from pod.util.say import say
from worker import job, serve_settings, warm_up
from worker.command import worker as worker_of
from worker.handler import CRASHED, log
from worker.http_access import Access
from worker.http_api import Api
from worker.http_server import serving
from worker.job_queue import JobQueue
from worker.readiness import Readiness
from worker.termination import GRACE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from worker.handler import Worker
    from worker.job import Place
    from worker.serve_settings import Settings

_LAST_LOOK: Final = 0.5  # seconds that a look at ComfyUI may take when all ends
_LAST_WORDS: Final = 1.0  # seconds in which clients that ask now and then learn what came of their jobs
_AROUND: Final = 10_000  # bytes of a job's state around its answer


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. Raises PodError."""
    if argv:
        raise PodError(f"serve takes no words, and {shown(argv[0], 40)!r} is one.", ARGUMENTS_REFUSED)
    settings = serve_settings.read(os.environ)
    asyncio.run(serve(worker_of(os.environ), settings))
    return 0


async def serve(worker: Worker, settings: Settings, grace: float = GRACE) -> None:
    """Serve a worker until the process is told to stop. Raises PodError."""
    stop = _stop_on_signals()
    async with served(worker, settings) as (port, queue):
        say(f"jobs are taken on port {port}{'' if settings.token else ', without a token'}.")
        await stop.wait()
        if await queue.stop(grace):
            await asyncio.sleep(_LAST_WORDS)


@asynccontextmanager
async def served(worker: Worker, settings: Settings) -> AsyncIterator[tuple[int, JobQueue]]:
    """Serve a worker as long as the block lasts; yields the port and the queue. Raises PodError."""
    place = replace(worker.place, largest=settings.response_bytes - _AROUND, beyond=settings.beyond)

    async def progress(given: dict[str, Any], message: dict[str, Any]) -> None:
        queue.tell(str(given["id"]), message)

    worker = replace(worker, place=place, send=progress)
    queue = JobQueue(worker.handle, settings, worker.open_jobs)
    readiness = Readiness(place, f"http://{settings.host or 'localhost'}:{settings.port}")
    left = worker.open_jobs.claim()
    queue.adopt(left, CRASHED)
    if worker.warm_up:
        readiness.warmed = False
        queue.hold()

    async def begin() -> None:
        await _drop(place, left.values())
        if worker.warm_up:
            await warm_up.run(worker.warm_up, place)
            readiness.warmed = True
            queue.release()

    api = Api(settings, queue, readiness, Access(settings), worker.presets)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(api, settings.host, settings.port))
        if settings.health_port:
            await stack.enter_async_context(serving(api.probe, None, settings.health_port))
        over = asyncio.Event()
        watch = asyncio.create_task(readiness.watch(over))
        tasks = {watch, asyncio.create_task(begin())}
        try:
            yield port, queue
        finally:
            over.set()
            await asyncio.wait({watch}, timeout=_LAST_LOOK)  # a look that has begun may end
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _drop(place: Place, prompts: Iterable[str]) -> None:
    """End what a worker that was killed left in ComfyUI, or the next job waits until that is done."""
    for prompt_id in filter(None, prompts):
        try:
            await job.drop(place, prompt_id)
        except Exception as error:  # noqa: BLE001 - the next job waits, then
            log("", "not dropped", error=f"{type(error).__name__}: {shown(error)}")


def _stop_on_signals() -> asyncio.Event:
    """Return what is set when the process is told to stop.

    Not by the loop's own handlers: Termination takes SIGTERM from whoever has it, and calls that one.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    return stop
