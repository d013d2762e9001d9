"""A ComfyUI for one test: its HTTP and websocket answers as 0.33.0 gives them, and faults at will.

It "runs" a workflow by giving each output node one small file.
Source: server.py, execution.py and main.py of ComfyUI 0.33.0.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import WSMsgType, encode_basic_auth, web

if TYPE_CHECKING:
    from types import TracebackType

KNOWN = {"LoadImage", "KSampler", "SaveImage", "PreviewImage", "ShowText", "SaveImageWebsocket"}
MISSING = "missing.png"  # a picture that LoadImage does not find
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 64


@dataclass
class Faults:
    """What goes wrong. `drop_socket`: cut the websocket when a prompt begins; `silent`: send no events."""

    drop_socket: bool = False
    silent: bool = False
    forget: bool = False
    error: str = ""
    endless: bool = False
    login: tuple[str, str] | None = None
    # What /history lists each SaveImage in place of its own: a list of files, or anything.
    images: Any = None
    word: str = "images"  # under which it lists them
    # Answers in place of its own, by the beginning of [method and] path: status, headers and body.
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    # Statuses that a proxy answers in its place, once each, by the beginning of the path.
    stray: dict[str, list[int]] = field(default_factory=dict)
    taken: bool = False  # ... and passes the request on all the same
    # Sent by the websocket before a prompt's first event.
    messages: list[str | bytes] = field(default_factory=list)
    pictures: int = 2  # how many a SaveImageWebsocket makes
    cookie: str = ""  # set with every answer
    lose: int = 0  # how many of them do not come
    plain: bool = False  # it knows no metadata of pictures, as older ones


@dataclass
class ComfyUI:
    """The server, in a thread of its own. Use it as a context manager; `url` is its address."""

    faults: Faults = field(default_factory=Faults)
    inputs: dict[str, bytes] = field(default_factory=dict)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    history: dict[str, Any] = field(default_factory=dict)
    sockets: dict[str, web.WebSocketResponse] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    viewed: list[str] = field(default_factory=list)  # the files that were asked for
    cookies: list[str] = field(default_factory=list)  # of every request
    freed: list[dict[str, Any]] = field(default_factory=list)  # what /free was asked
    connections: int = 0
    url: str = ""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        started.set()
        self._loop.run_forever()

    async def _stop(self) -> None:
        await self._runner.cleanup()
        mine = asyncio.current_task()
        left = [task for task in asyncio.all_tasks() if task is not mine]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._login], client_max_size=1 << 20)
        app.router.add_post("/upload/image", self._upload)
        app.router.add_post("/prompt", self._prompt)
        app.router.add_get("/prompt", self._remaining)
        app.router.add_post("/queue", self._drop)
        app.router.add_get("/queue", self._queue)
        app.router.add_post("/interrupt", self._interrupt)
        app.router.add_post("/free", self._free)
        app.router.add_get("/history/{prompt_id}", self._record)
        app.router.add_get("/view", self._view)
        app.router.add_get("/ws", self._socket)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        server = site._server
        assert isinstance(server, asyncio.Server)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    @web.middleware
    async def _login(self, request: web.Request, handler: Any) -> web.StreamResponse:
        wanted = self.faults.login
        self.cookies.append(request.headers.get("Cookie", ""))
        for path, (status, headers, body) in self.faults.answers.items():
            if request.path.startswith(path) or f"{request.method} {request.path}".startswith(path):
                return web.Response(status=status, headers=headers, body=body)
        for path, statuses in self.faults.stray.items():
            if request.path.startswith(path) and statuses:
                if self.faults.taken:
                    await handler(request)
                return web.Response(status=statuses.pop(0))
        if wanted and request.headers.get("Authorization") != encode_basic_auth(*wanted):
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
        answer: web.StreamResponse = await handler(request)
        if self.faults.cookie and not answer.prepared:
            answer.headers["Set-Cookie"] = self.faults.cookie
        return answer

    async def _upload(self, request: web.Request) -> web.Response:
        post = await request.post()
        image = post["image"]
        assert isinstance(image, web.FileField)
        data, name = image.file.read(), image.filename
        folder = str(post.get("subfolder", ""))
        if post.get("overwrite") != "true":
            stem, dot, end = name.rpartition(".")
            number = 1
            while self.inputs.get(f"{folder}/{name}", data) != data:
                name = f"{stem} ({number}){dot}{end}"
                number += 1
        self.inputs[f"{folder}/{name}"] = data
        return web.json_response({"name": name, "subfolder": folder, "type": "input"})

    async def _prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        for number, node in body["prompt"].items():
            if node["class_type"] not in KNOWN:
                message = f"Node '{node['class_type']}' not found. The custom node may not be installed."
                error = {"type": "missing_node_type", "message": message, "details": f"Node ID '#{number}'"}
                return web.json_response({"error": error, "node_errors": {}}, status=400)
            if node["inputs"].get("seed") == "none":
                errors = [
                    {
                        "type": "invalid_input_type",
                        "message": "Failed to convert an input value to a INT value",
                        "details": "seed, none",
                    }
                ]
                error = {
                    "type": "prompt_outputs_failed_validation",
                    "message": "Prompt outputs failed validation",
                }
                own = {number: {"errors": errors, "class_type": node["class_type"]}}
                return web.json_response({"error": error, "node_errors": own}, status=400)
        refused = self._refused(body["prompt"])
        self.prompts.append(body)
        self._work = asyncio.ensure_future(self._execute(body, refused))
        return web.json_response({"prompt_id": body["prompt_id"], "number": 0, "node_errors": refused})

    @staticmethod
    def _refused(prompt: dict[str, Any]) -> dict[str, Any]:
        """Return the nodes that do not validate, as validate_prompt does where other outputs are good."""
        refused = {}
        for number, node in prompt.items():
            if node["inputs"].get("image") == MISSING:
                error = {"message": "Invalid image file", "details": f"image - {MISSING}"}
                needs = [
                    other
                    for other, each in prompt.items()
                    if [number, 0] in each["inputs"].values() and each["class_type"].startswith("Save")
                ]
                refused[number] = {
                    "errors": [{"type": "custom_validation_failed", **error, "extra_info": {}}],
                    "dependent_outputs": needs,
                    "class_type": node["class_type"],
                }
        return refused

    async def _execute(self, body: dict[str, Any], refused: dict[str, Any]) -> None:
        prompt_id, client = body["prompt_id"], body["client_id"]
        self.running[prompt_id] = client
        await asyncio.sleep(0.05)
        if self.faults.forget:
            self.running.clear()
        if self.faults.drop_socket:
            await self.sockets.pop(client).close()
            await asyncio.sleep(0.5)
        if self.faults.forget:
            return
        while self.faults.endless and prompt_id in self.running:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.02)
        for message in self.faults.messages:
            send = (
                self.sockets[client].send_str if isinstance(message, str) else self.sockets[client].send_bytes
            )
            await send(message)  # type: ignore[arg-type]
        outputs: dict[str, Any] = {}
        stopped = {output for each in refused.values() for output in each["dependent_outputs"]}
        for number, node in body["prompt"].items():
            if number in stopped or number in refused:
                continue
            await self._send(
                client, "executing", {"node": number, "display_node": number, "prompt_id": prompt_id}
            )
            outputs |= self._made(number, node["class_type"])
            await self._pictures(client, prompt_id, number, node["class_type"])
        interrupted = self.running.pop(prompt_id, None) is None
        messages: list[Any] = []
        if interrupted:
            messages = [["execution_interrupted", {"prompt_id": prompt_id}]]
        elif self.faults.error:
            data = {"node_id": "3", "node_type": "KSampler", "exception_type": "RuntimeError"}
            messages = [["execution_error", {**data, "exception_message": self.faults.error}]]
        status = {"status_str": "error" if messages else "success", "messages": messages}
        self.history[prompt_id] = {"outputs": outputs, "status": status}
        await self._send(client, "executing", {"node": None, "prompt_id": prompt_id})

    async def _pictures(self, client: str, prompt_id: str, number: str, kind: str) -> None:
        """Send previews of a sampler, and the pictures of a SaveImageWebsocket, as main.py's hook does."""
        count = {"KSampler": 1, "SaveImageWebsocket": self.faults.pictures}.get(kind, 0)
        for value in range(count):
            progress = {"value": value, "max": count, "prompt_id": prompt_id, "node": number}
            await self._send(client, "progress", progress)
            if (kind != "KSampler" and value >= count - self.faults.lose) or self.faults.silent:
                continue
            body = PNG + bytes([value]) if kind != "KSampler" else JPEG
            if self.faults.plain:
                head = struct.pack(">II", 1, 2 if body.startswith(PNG) else 1)
            else:
                told = {"node_id": number, "prompt_id": prompt_id, "display_node_id": number}
                metadata = json.dumps({**told, "image_type": "image/png"}).encode()
                head = struct.pack(">II", 4, len(metadata)) + metadata
            await self.sockets[client].send_bytes(head + body)

    def _made(self, number: str, kind: str) -> dict[str, Any]:
        file = {"filename": f"{kind}_{number}.png", "subfolder": "night", "type": "output"}
        match kind:
            case "SaveImage":
                shown = [file] if self.faults.images is None else self.faults.images
                return {number: {self.faults.word: shown}}
            case "PreviewImage":
                return {number: {"images": [{**file, "subfolder": "", "type": "temp"}]}}
            case "ShowText":
                return {number: {"text": ["seen"]}}
        return {}

    async def _send(self, client: str, kind: str, data: dict[str, Any]) -> None:
        socket = self.sockets.get(client)
        if socket and not self.faults.silent:
            await socket.send_json({"type": kind, "data": data})

    async def _drop(self, request: web.Request) -> web.Response:
        self.cancelled += (await request.json())["delete"]
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.Response:
        self.running.pop((await request.json())["prompt_id"], None)
        return web.Response()

    async def _free(self, request: web.Request) -> web.Response:
        self.freed.append(await request.json())
        return web.Response()

    async def _queue(self, _request: web.Request) -> web.Response:
        rows = [[0, prompt_id, {}, {}, []] for prompt_id in self.running]
        return web.json_response({"queue_running": rows, "queue_pending": []})

    async def _remaining(self, _request: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": len(self.running)}})

    async def _record(self, request: web.Request) -> web.Response:
        number = request.match_info["prompt_id"]
        return web.json_response({number: self.history[number]} if number in self.history else {})

    @staticmethod
    async def _trickle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(b"x")
                await asyncio.sleep(0.05)
        return answer

    async def _view(self, request: web.Request) -> web.StreamResponse:
        self.viewed.append(request.query["filename"])
        if request.query["filename"].startswith("gone"):
            return web.Response(status=404)
        if request.query["filename"].startswith("trickle"):
            return await self._trickle(request)
        return web.Response(body=PNG + request.query["subfolder"].encode(), content_type="image/png")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.connections += 1
        client = request.query["clientId"]
        self.sockets[client] = socket
        await socket.send_json({"type": "status", "data": {"status": {}, "sid": client}})
        await socket.send_bytes(b"\0\0\0\1preview")
        async for message in socket:
            assert message.type is WSMsgType.TEXT
        return socket
