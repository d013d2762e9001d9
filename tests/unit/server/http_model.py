"""A model behind HTTP for a test, and a client of it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from unit.server.fake_model import FakeModel

from server.command import served
from worker.serve_settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from server.api.served import Served

TOKEN = "a-token-of-the-tests"


@dataclass
class Client:
    """A client with the token, and what it cannot see: the port, the model and what serves it."""

    session: aiohttp.ClientSession
    port: int
    model: FakeModel
    served: Served

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Return the status and the body: as JSON where it is that, None for an empty one."""
        async with self.session.request(method, path, **options) as answer:
            body = await answer.read()
            if answer.content_type == "application/json":
                return answer.status, json.loads(body)
            return answer.status, body or None

    async def post(self, path: str, given: Any, **options: Any) -> Any:
        """Post something that is taken; returns the answer."""
        status, said = await self.ask("POST", path, json=given, **options)
        assert status in (200, 202), said
        return said

    async def events(self, path: str, given: Any, **options: Any) -> list[tuple[str, Any]]:
        """Post something that is answered with events; returns them."""
        async with self.session.post(path, json=given, **options) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream"), await answer.text()
            text = await answer.text()
        blocks = [each.split("\n") for each in text.strip().split("\n\n") if each != ":"]
        return [
            (kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in blocks
        ]

    async def until(self, number: str, status: str) -> Any:
        """Wait until a job is in a state; returns it."""

        async def there() -> bool:
            return bool((await self.ask("GET", f"/jobs/{number}"))[1]["status"] == status)

        await eventually(there)
        return (await self.ask("GET", f"/jobs/{number}"))[1]


async def eventually(there: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not await there():  # noqa: ASYNC110 - other threads make it so
            await asyncio.sleep(0.01)


@asynccontextmanager
async def http_model(model: FakeModel, *, private: bool = False, **settings: Any) -> AsyncIterator[Client]:
    """Serve a model as long as the block lasts."""
    wanted = Settings(**{"port": 0, "host": "127.0.0.1", "token": TOKEN, "rate": 10_000, **settings})
    async with (
        served(lambda _environ, _phase: model, wanted, private=private) as (port, there, loading),
        aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}
        ) as session,
    ):
        await loading
        yield Client(session, port, model, there)
        if model.held:
            model.held.set()
        await there.queue.stop(5.0)


def run(work: Callable[[Client], Awaitable[None]], *tasks: str, **settings: Any) -> FakeModel:
    """Do a client's work with a model that is served; returns the model."""
    model = FakeModel(*tasks)

    async def serve() -> None:
        async with asyncio.timeout(60), http_model(model, **settings) as client:
            await work(client)

    asyncio.run(serve())
    return model
