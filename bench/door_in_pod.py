"""What bench/door.py runs inside a pod: as its main.py something that serves quickly, and the measuring.

Prints one JSON line: by measure, pairs of seconds, through the door and past it, one after the other.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BIG = 256 << 20
PIECE = bytes(1 << 20)
MESSAGES, MESSAGE = 200, bytes(256 << 10)  # as previews of a sampler
DOOR, PAST = "http://127.0.0.1:8188", "http://127.0.0.1:18188"


async def system_stats(_: web.Request) -> web.Response:
    """Answer at once, as the health check wants it."""
    return web.json_response({"system": {}})


async def upload(request: web.Request) -> web.Response:
    """Take a body and keep nothing of it."""
    async for _ in request.content.iter_chunked(1 << 18):
        pass
    return web.Response()


async def download(request: web.Request) -> web.StreamResponse:
    """Send a large file."""
    answer = web.StreamResponse(headers={"Content-Length": str(BIG)})
    await answer.prepare(request)
    for _ in range(BIG // len(PIECE)):
        await answer.write(PIECE)
    return answer


async def websocket(request: web.Request) -> web.WebSocketResponse:
    """Send many messages, and end."""
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    for _ in range(MESSAGES):
        await socket.send_bytes(MESSAGE)
    await socket.close()
    return socket


def serve() -> None:
    """Stand in for ComfyUI."""
    app = web.Application(client_max_size=0)
    for path in ("/system_stats", "/queue"):
        app.router.add_get(path, system_stats)
    app.router.add_post("/upload", upload)
    app.router.add_get("/download", download)
    app.router.add_get("/ws", websocket)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[sys.argv.index("--port") + 1]), print=None)


async def measure(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Ask for each thing by both ways in turn, over connections that are kept."""
    async with aiohttp.ClientSession() as session:

        async def request(base: str) -> None:
            async with session.get(f"{base}/system_stats") as answer:
                await answer.read()

        async def up(base: str) -> None:
            async def body() -> Any:
                for _ in range(BIG // len(PIECE)):
                    yield PIECE

            async with session.post(
                f"{base}/upload", data=body(), headers={"Content-Length": str(BIG)}
            ) as answer:
                await answer.read()

        async def down(base: str) -> None:
            async with session.get(f"{base}/download") as answer:
                async for _ in answer.content.iter_chunked(1 << 18):
                    pass

        async def messages(base: str) -> None:
            async with session.ws_connect(f"{base}/ws", max_msg_size=0) as socket:
                async for _ in socket:
                    pass

        async def pairs(what: Callable[[str], Awaitable[None]], count: int) -> list[tuple[float, float]]:
            return [(await timed(what, DOOR), await timed(what, PAST)) for _ in range(count + 1)][1:]

        return {
            "request": await pairs(request, 100 * rounds),
            "upload": await pairs(up, rounds),
            "download": await pairs(down, rounds),
            "websocket": await pairs(messages, rounds),
        }


async def timed(what: Callable[[str], Awaitable[None]], base: str) -> float:
    """Return how many seconds something took."""
    begun = time.perf_counter()
    await what(base)
    return time.perf_counter() - begun


if __name__ == "__main__":
    if "--port" in sys.argv:
        serve()
    else:
        print(json.dumps(asyncio.run(measure(int(sys.argv[1])))))
