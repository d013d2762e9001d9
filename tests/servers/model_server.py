"""A server of a model for the page: what scripts/server/page says of it, played by a script."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import diffusers_signatures as signatures
from aiohttp import web

from server import page
from server.errors import RequestError
from server.schema import reading

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from server.schema.parameters import Schema

SCHEDULERS = (
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
)
PIPELINES = {
    "text-to-image": "StableDiffusionXLPipeline",
    "image-to-image": "StableDiffusionXLImg2ImgPipeline",
    "inpainting": "StableDiffusionXLInpaintPipeline",
}
TOKEN = "a-token"


def picture(width: int, height: int, seed: int) -> bytes:
    """Return a PNG of hills in the evening."""
    rows = []
    for y in range(height):
        level = y / height
        sky = bytes((int(162 + 120 * min(level, 0.7)), int(150 + 66 * level), int(220 - 90 * level)))
        land = bytes((int(40 + 30 * level), int(52 + 60 * (1 - level)), int(86 + 20 * level)))
        row = (
            land if level > 0.62 + 0.4 * ((x * 3 + seed * 37) % width / width - 0.5) ** 2 else sky
            for x in range(width)
        )  # fmt: skip
        rows.append(b"\0" + b"".join(row))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"".join(rows), 1))
        + chunk(b"IEND", b"")
    )


def schemas() -> dict[str, Schema]:
    """Return the schemas of SDXL's three tasks."""
    return {
        task: reading.read(
            name,
            task,
            signatures.signature(name),
            "\nArgs:\n    guidance_scale (`float`):\n        How closely the prompt is followed.",
            reading.Facts(signatures.code(name), signatures.VALUES, SCHEDULERS, SCHEDULERS[-1]),
        )
        for task, name in PIPELINES.items()
    }


@dataclass
class ModelServer:
    """Serves the page and plays a model.

    `loading` is how often /health says so, `pause` how many seconds a step takes, `size` that of pictures.
    """

    loading: int = 0
    pause: float = 0.0
    steps: int = 4
    size: int = 64
    asked: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    origin: str = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[ModelServer]:
        """Serve at a port of its own."""
        self._schemas = schemas()
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/", self._page)
        app.router.add_get("/health", self._health)
        app.router.add_get("/schema", self._schema)
        app.router.add_post("/generate", self._generate)
        app.router.add_delete("/jobs/{id}", self._cancel)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = runner.addresses[0][1]
        self.origin = f"http://127.0.0.1:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(
            text=page.page(), content_type="text/html", headers={"Content-Security-Policy": page.policy()}
        )

    async def _health(self, _request: web.Request) -> web.Response:
        self.loading -= 1
        ready = self.loading < 0
        said = {
            "status": "ready" if ready else "loading",
            "phase": "" if ready else "Reading weights, 2.1 of 6.9 GB",
        }
        return web.json_response({**said, "queue": {"waiting": 0, "running": 0}})

    async def _schema(self, _request: web.Request) -> web.Response:
        model = {
            "id": "stabilityai/stable-diffusion-xl-base-1.0", "revision": "4" * 40,
            "pipeline": PIPELINES["text-to-image"], "task": "text-to-image", "tasks": list(PIPELINES),
            "dtype": "bfloat16", "mode": "full", "loras": [],
        }  # fmt: skip
        return web.json_response(
            {"model": model, "tasks": {task: each.to_json_schema() for task, each in self._schemas.items()}}
        )

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": "The token is missing or wrong."}, status=401)
        body = await request.json()
        values = {name: value for name, value in body.items() if name not in {"task", "previews"}}
        try:
            values = self._schemas[body["task"]].checked(values)
        except RequestError as error:
            return web.json_response({"error": str(error)}, status=400)
        if "teapot" in values["prompt"]:
            return web.json_response({"error": "guidance_scale has to be 418 for a teapot."}, status=400)
        self.asked.append(body)
        job = f"job-{len(self.asked)}"
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)

        async def send(kind: str, data: dict[str, Any]) -> None:
            await answer.write(f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode())

        await send("status", {"id": job, "status": "IN_QUEUE", "position": 1})
        small = base64.b64encode(picture(48, 48, 1)).decode()
        for step in range(1, self.steps + 1):
            await asyncio.sleep(self.pause)
            if job in self.cancelled:
                await send("result", {"id": job, "status": "CANCELLED", "error": "It was cancelled."})
                return answer
            await send(
                "progress", {"step": step, "steps": self.steps, "preview": f"data:image/png;base64,{small}"}
            )
        seed = values.get("seed", 7)
        images = [
            {
                "filename": f"image-{at}.png", "type": "base64", "mime": "image/png", "seed": seed + at,
                "width": self.size, "height": self.size,
                "data": base64.b64encode(picture(self.size, self.size, seed + at)).decode(),
            }
            for at in range(values.get("num_images_per_prompt", 1))
        ]  # fmt: skip
        parameters = {**values, "num_inference_steps": self.steps, "scheduler": SCHEDULERS[-1]}
        output = {
            "images": images,
            "parameters": parameters,
            "timings": {"prepare": 0.1, "denoise": 1.9, "encode": 0.2},
        }
        await send("result", {"id": job, "status": "COMPLETED", "output": output})
        return answer

    async def _cancel(self, request: web.Request) -> web.Response:
        self.cancelled.append(request.match_info["id"])
        return web.json_response({"id": request.match_info["id"], "status": "CANCELLED"})
