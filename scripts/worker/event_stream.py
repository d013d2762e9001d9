"""A job as server-sent events (html.spec.whatwg.org, 9.2): where it is, how far, and what came of it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from aiohttp import web

from worker.job_record import IN_PROGRESS, encoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.job_record import Job

_QUIET_SECONDS: Final = 15.0  # after which a comment tells proxies that the connection is alive
_WRITE_SECONDS: Final = 60.0  # that a client may take to read what was sent


async def follow(request: web.BaseRequest, job: Job, public: Callable[[Job], bytes]) -> web.StreamResponse:
    """Send a job's events until it ends. A client that is slow gets the newest, not each."""
    answer = await begun(request)
    told: tuple[str, bytes] | None = None
    while True:
        changed = job.changed
        if job.over:
            await send(request, answer, event("result", job.final))
            return answer
        state = _state(job, public)
        if state != told:
            await send(request, answer, event(*state))
            told = state
        await wait(request, answer, changed)


async def begun(request: web.BaseRequest) -> web.StreamResponse:
    """Return an answer of events that has begun."""
    answer = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "Server": "podkiln",
            "X-Accel-Buffering": "no",  # or nginx in front would keep them back
        }
    )
    await answer.prepare(request)
    return answer


async def wait(request: web.BaseRequest, answer: web.StreamResponse, changed: asyncio.Event) -> None:
    """Wait for a change, so long that nobody takes the connection for dead."""
    try:
        async with asyncio.timeout(_QUIET_SECONDS):
            await changed.wait()
    except TimeoutError:
        await send(request, answer, b":\n\n")


def _state(job: Job, public: Callable[[Job], bytes]) -> tuple[str, bytes]:
    if job.status == IN_PROGRESS and job.progress:
        return "progress", encoded(job.progress)
    # Without its times, which change by themselves.
    said = json.loads(public(job))
    return "status", encoded({name: said[name] for name in ("id", "status", "position") if name in said})


def event(kind: str, data: bytes) -> bytes:
    """Return an event as it is sent."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)


async def send(request: web.BaseRequest, answer: web.StreamResponse, data: bytes) -> None:
    """Send a part. Raises ConnectionError for a client that does not read."""
    try:
        async with asyncio.timeout(_WRITE_SECONDS):
            await answer.write(data)
    except TimeoutError:
        if request.transport:
            request.transport.abort()
        raise ConnectionError from None
