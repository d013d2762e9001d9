"""A worker behind HTTP for a test, and a client of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from worker.handler import Worker
from worker.job_file import JobFile
from worker.presets import Preset, Presets
from worker.serve_command import served
from worker.serve_settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from worker.job import Place
    from worker.job_queue import JobQueue

TOKEN = "a-token-of-the-tests"
WORKFLOW: dict[str, Any] = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}
JOB = {"input": {"workflow": WORKFLOW}}
ROW = {"id": "mine", "title": "Mine", "summary": "", "inputs": {}, "models": [], "unused": {}}
KNOWN = Presets({"mine": Preset.from_json(ROW, WORKFLOW)})


@dataclass
class Client:
    """A client with the token, and what it cannot see: the port and the queue."""

    session: aiohttp.ClientSession
    port: int
    queue: JobQueue

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Return the status, and the body as JSON; None for an empty one."""
        async with self.session.request(method, path, **options) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body else None

    async def post(self, path: str, given: Any = JOB, **options: Any) -> Any:
        """Post something that is taken; returns the answer."""
        status, said = await self.ask("POST", path, json=given, **options)
        assert status == 200, said
        return said

    async def status(self, number: str) -> Any:
        return (await self.ask("GET", f"/status/{number}"))[1]

    async def until(self, number: str, *states: str) -> Any:
        """Wait until a job is in one of the states; returns it."""

        async def there() -> bool:
            return (await self.status(number))["status"] in states

        await eventually(there)
        return await self.status(number)

    async def pinged(self, wanted: int) -> None:
        """Wait until /ping answers so."""

        async def there() -> bool:
            return (await self.ask("GET", "/ping"))[0] == wanted

        await eventually(there)

    async def raw(self, data: bytes, after: bytes = b"") -> bytes:
        """Send bytes on a connection of their own; returns the first answer to them, b"" for none.

        `after` is sent again and again until it has come.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answer = asyncio.create_task(_answer(reader))
        try:
            async with asyncio.timeout(20):
                while not (await asyncio.wait({answer}, timeout=0.05))[0]:
                    writer.write(after)
                return await answer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as cut:
        return cut.partial
    length = re.search(rb"\r\nContent-Length: (\d+)", head)
    return head + await reader.readexactly(int(length[1]) if length else 0)


async def eventually(there: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not await there():  # noqa: ASYNC110 - other threads and processes make it so
            await asyncio.sleep(0.02)


@asynccontextmanager
async def http_worker(place: Place, *, warm_up: str = "", **settings: Any) -> AsyncIterator[Client]:
    """Serve as long as the block lasts."""
    wanted = Settings(**{"port": 0, "host": "127.0.0.1", "token": TOKEN, **settings})
    worker = Worker(place, JobFile(place.run / "jobs.json"), interval=0.0, warm_up=warm_up, presets=KNOWN)
    async with (
        served(worker, wanted) as (port, queue),
        aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}
        ) as session,
    ):
        yield Client(session, port, queue)
        await queue.stop(5.0)


def run(place: Place, work: Callable[[Client], Awaitable[None]], **settings: Any) -> None:
    """Do a client's work with a worker that is served."""

    async def serve() -> None:
        async with asyncio.timeout(30), http_worker(place, **settings) as client:
            await work(client)

    asyncio.run(serve())
