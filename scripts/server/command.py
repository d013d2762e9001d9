"""`/opt/venv/bin/python -I /opt/podkiln model`: the model of MODEL_ID behind HTTP, or for RunPod's jobs.

It listens at once, so that /ping can say that the model is being loaded.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Final

from pod.errors import ARGUMENTS_REFUSED, INTERNAL, PodError
from pod.util import env
from pod.util.printable import shown
from pod.util.say import say
from pod.util.serving import READY
from server.api.served import Served
from server.api.server import Api
from server.jobs.public import Public, plain
from server.jobs.queue import Queue
from server.jobs.thread import OneThread
from worker import serve_settings
from worker.http_access import Access
from worker.http_server import serving
from worker.termination import GRACE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from server.generation.request import Model
    from worker.serve_settings import Settings

    Open = Callable[[Mapping[str, str], Callable[[str], None]], Model]

_LAST_WORDS: Final = 0.5  # seconds in which clients that ask now and then learn what came of their jobs
_PRIVATE: Final = "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS"
_LOST: Final = (
    "the card no longer answers this process, whose generations would all fail: it ends, to be started again."
)


def main(argv: list[str], open_model: Open | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. Raises PodError.

    Args:
        argv: No words are known.
        open_model: Loads the model, in place of what is loaded by the environment: for tests.
    """
    if argv:
        raise PodError(f"model takes no words, and {shown(argv[0], 40)!r} is one.", ARGUMENTS_REFUSED)
    opened = open_model or _opened
    if os.environ.get("RUNPOD_WEBHOOK_GET_JOB"):
        from server.jobs import runpod  # noqa: PLC0415 - not where jobs come by HTTP

        runpod.serve(opened, os.environ)
        return 0
    settings = serve_settings.read(os.environ)
    private = env.is_on(_PRIVATE, os.environ.get(_PRIVATE))
    if asyncio.run(serve(opened, settings, private=private)):
        sys.stdout.flush()
        os._exit(0)  # torch is at work in the other thread, and cannot be taken down in order
    return 0


async def serve(open_model: Open, settings: Settings, grace: float = GRACE, *, private: bool = False) -> bool:
    """Serve until the process is told to stop; returns whether the model still works. Raises PodError."""
    stop = _stop_on_signals()
    async with served(open_model, settings, private=private) as (port, there, loading):
        say(f"requests are taken on port {port}{'' if settings.token else ', without a token'}.")
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(there.queue.broken.wait())]
        await asyncio.wait([*ends, loading], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
        if await there.queue.stop(grace):
            await asyncio.sleep(_LAST_WORDS)
        busy = there.queue.running or not loading.done()
        if there.queue.broken.is_set():
            raise PodError(_LOST, INTERNAL)  # with which it is started again
        return busy


@asynccontextmanager
async def served(
    open_model: Open, settings: Settings, *, private: bool = False
) -> AsyncIterator[tuple[int, Served, asyncio.Task[None]]]:
    """Serve as long as the block lasts; yields the port, what is served, and the task that loads it.

    That raises PodError where the model cannot be loaded. Raises PodError where the port is taken.
    """
    thread = OneThread()
    there = Served(Queue(settings, thread))
    api = Api(settings, there, Access(settings), private=private)
    async with AsyncExitStack() as stack:
        stack.callback(thread.close)
        port = await stack.enter_async_context(serving(api, settings.host, settings.port, cancels=True))
        if settings.health_port:
            await stack.enter_async_context(serving(api.probe, None, settings.health_port))
        loading = asyncio.create_task(
            _load(open_model, there, thread, f"{settings.host or 'localhost'}:{port}")
        )
        try:
            yield port, there, loading
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)


async def _load(open_model: Open, there: Served, thread: OneThread, address: str) -> None:
    def phase(said: str) -> None:
        there.phase = shown(said, 200)

    try:
        there.model = Public(await thread.call(lambda: open_model(os.environ, phase)))
    except PodError as error:
        there.problem = plain(error)
        raise
    except Exception:
        there.problem = "an internal error of podkiln; its log says more."
        raise
    print(f"{READY}, http://{address}.", flush=True)


def _opened(environ: Mapping[str, str], phase: Callable[[str], None]) -> Model:
    # It brings torch: the server listens before.
    found: Model = import_module("server.loading").open_model(environ, phase=phase)
    return found


def _stop_on_signals() -> asyncio.Event:
    """Return what is set when the process is told to stop."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    return stop
