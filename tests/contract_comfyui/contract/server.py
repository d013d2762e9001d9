"""ComfyUI's server, as far as pods and their tests speak to it; on aiohttp, like the real one.

Source: server.py and execution.py of ComfyUI 0.33.0; keys and messages as recorded from it.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import logging
import os
import sys
import uuid
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from contract import devices
from contract.prompts import Prompt, Prompts

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from contract.folders import Folders

log = logging.getLogger(__name__)
_RECORDED = Path(__file__).parent / "recorded"
_UPLOAD_MB = 100.0


class Server:
    """The routes, and what they answer from."""

    def __init__(
        self,
        args: argparse.Namespace,
        version: str,
        folders: Folders,
        found: list[dict[str, Any]],
        classes: dict[str, type],
    ) -> None:
        self.classes = classes
        self.args = args
        self.version = version
        self.folders = folders
        self.devices = found
        self.number = 0
        self.sockets: dict[str, web.WebSocketResponse] = {}
        base = Path(args.base_directory or Path(__file__).resolve().parents[1]).absolute()
        self.directories = {
            "input": Path(args.input_directory or base / "input").absolute(),
            "output": Path(args.output_directory or base / "output").absolute(),
            "temp": Path(args.temp_directory or base).absolute() / "temp",
        }
        self.prompts = Prompts(self.directories["output"], self.send)

    async def send(self, kind: str, data: dict[str, Any], client: str | None = None) -> None:
        """Send an event to one client, or to all."""
        for name, socket in list(self.sockets.items()):
            if client in (None, name) and not socket.closed:
                await socket.send_json({"type": kind, "data": data})

    @cached_property
    def nodes(self) -> dict[str, Any]:
        """The recorded part of /object_info."""
        return dict(json.loads((_RECORDED / "object_info.json").read_bytes()))

    def system_stats(self) -> dict[str, Any]:
        """Return the recorded answer with this process's own figures in it."""
        total, free = devices.ram()
        own = {
            "os": sys.platform,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": self.version,
            "python_version": sys.version,
            "argv": sys.argv,
        }
        recorded = json.loads((_RECORDED / "system.json").read_bytes())
        return {"system": {**recorded, **own}, "devices": self.devices}

    def object_info(self) -> dict[str, Any]:
        """Return the recorded nodes; what lists checkpoints lists those that are there now."""
        nodes = json.loads(json.dumps(self.nodes))
        for node, group, name, folder in (
            ("CheckpointLoaderSimple", "required", "ckpt_name", "checkpoints"),
        ):
            nodes[node]["input"][group][name][0] = self.folders.kinds[folder].files()
        return {**nodes, **{name: _described(name, kind) for name, kind in self.classes.items()}}

    def refusal(self, prompt: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return why a prompt is not taken; None when it is."""
        if prompt is None:
            said = "No prompt provided"
            return {"type": "no_prompt", "message": said, "details": said, "extra_info": {}}
        for number, node in prompt.items():
            kind = node.get("class_type")
            if kind not in self.nodes:
                title = node.get("_meta", {}).get("title", kind)
                return {
                    "type": "missing_node_type",
                    "message": f"Node '{title}' not found. The custom node may not be installed.",
                    "details": f"Node ID '#{number}'",
                    "extra_info": {"node_id": number, "class_type": kind, "node_title": title},
                }
        if not any(self.nodes[node["class_type"]]["output_node"] for node in prompt.values()):
            said = "Prompt has no outputs"
            return {"type": "prompt_no_outputs", "message": said, "details": "", "extra_info": {}}
        return None

    async def get_root(self, _: web.Request) -> web.Response:
        """/: the page."""
        return web.Response(text="<!doctype html><title>ComfyUI</title>", content_type="text/html")

    async def get_system_stats(self, _: web.Request) -> web.Response:
        """/system_stats."""
        return web.json_response(self.system_stats())

    async def get_object_info(self, request: web.Request) -> web.Response:
        """/object_info, of all nodes or of one."""
        only = request.match_info.get("node")
        found = {name: node for name, node in self.object_info().items() if only in (None, name)}
        return web.json_response(found)

    async def get_models(self, request: web.Request) -> web.Response:
        """/models: the kinds; /models/KIND: its files."""
        kind = request.match_info.get("kind")
        if kind is None:
            return web.json_response(list(self.folders.kinds))
        if kind not in self.folders.kinds:
            return web.Response(status=HTTPStatus.NOT_FOUND)
        return web.json_response(self.folders.kinds[kind].files())

    async def get_prompt(self, _: web.Request) -> web.Response:
        """/prompt: how much is queued."""
        return web.json_response({"exec_info": {"queue_remaining": self.prompts.remaining}})

    async def post_prompt(self, request: web.Request) -> web.Response:
        """/prompt: queue one."""
        log.info("got prompt")
        body = json.loads(await request.text())
        number, self.number = self.number, self.number + 1
        if error := self.refusal(body.get("prompt")):
            log.warning("invalid prompt: %s", error)
            return web.json_response({"error": error, "node_errors": {}}, status=HTTPStatus.BAD_REQUEST)
        prompt_id = body.get("prompt_id") or str(uuid.uuid4())
        extra = {**body.get("extra_data", {}), "client_id": body.get("client_id")}
        self.prompts.add(Prompt(number, prompt_id, body["prompt"], extra))
        return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": {}})

    async def get_queue(self, _: web.Request) -> web.Response:
        """/queue: what runs, and what waits."""
        running, pending = self.prompts.running, self.prompts.pending
        rows = {
            "queue_running": [running.row] if running else [],
            "queue_pending": [each.row for each in pending],
        }
        return web.json_response(rows)

    async def post_queue(self, request: web.Request) -> web.Response:
        """/queue: take prompts out."""
        body = await request.json()
        if body.get("clear"):
            self.prompts.pending.clear()
        self.prompts.delete(body.get("delete", []))
        return web.Response()

    async def post_interrupt(self, request: web.Request) -> web.Response:
        """/interrupt: whatever runs, or one prompt if it runs."""
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = {}
        self.prompts.interrupt(body.get("prompt_id"))
        return web.Response()

    async def post_free(self, request: web.Request) -> web.Response:
        """/free: note what is to be given back when nothing runs."""
        body = await request.json()
        log.info("free: %s", sorted(name for name in ("unload_models", "free_memory") if body.get(name)))
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        """/history: of all, or of one prompt."""
        only = request.match_info.get("prompt_id")
        history = self.prompts.history
        return web.json_response({name: each for name, each in history.items() if only in (None, name)})

    async def post_upload(self, request: web.Request) -> web.Response:
        """/upload/image: store a file under a free name."""
        post = await request.post()
        image = post.get("image")
        if not isinstance(image, web.FileField) or not image.filename:
            return web.Response(status=HTTPStatus.BAD_REQUEST)
        kind, subfolder = str(post.get("type", "input")), str(post.get("subfolder", ""))
        top = self.directories[kind]
        name, path = image.filename, (top / subfolder / image.filename).absolute()
        if not _inside(path, top):
            return web.Response(status=HTTPStatus.BAD_REQUEST)
        path.parent.mkdir(parents=True, exist_ok=True)
        data, number = image.file.read(), 1
        while post.get("overwrite") not in ("true", "1") and path.exists() and path.read_bytes() != data:
            stem, end = os.path.splitext(image.filename)  # noqa: PTH122 - as the real one
            name = f"{stem} ({number}){end}"
            path, number = path.with_name(name), number + 1
        path.write_bytes(data)
        return web.json_response({"name": name, "subfolder": subfolder, "type": kind})

    async def get_view(self, request: web.Request) -> web.StreamResponse:
        """/view: a file of the input, output or temp folder."""
        top = self.directories.get(request.query.get("type", "output"))
        name = request.query.get("filename", "")
        if not top or not name or name[0] == "/" or ".." in name:
            return web.Response(status=HTTPStatus.BAD_REQUEST)
        path = top / request.query.get("subfolder", "") / Path(name).name
        if not _inside(path, top):
            return web.Response(status=HTTPStatus.FORBIDDEN)
        return web.FileResponse(path) if path.is_file() else web.Response(status=HTTPStatus.NOT_FOUND)

    async def get_ws(self, request: web.Request) -> web.WebSocketResponse:
        """/ws: events."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sid = request.query.get("clientId") or uuid.uuid4().hex
        self.sockets[sid] = socket
        try:
            status = {"exec_info": {"queue_remaining": self.prompts.remaining}}
            await self.send("status", {"status": status, "sid": sid}, sid)
            async for _ in socket:
                pass
        finally:
            self.sockets.pop(sid, None)
        return socket

    def app(self) -> web.Application:
        """Return all routes, each also below /api, as the real one has them."""
        megabytes = self.args.max_upload_size or _UPLOAD_MB
        guards = [] if self.args.enable_cors_header else [own_origin_only]
        app = web.Application(client_max_size=round(megabytes * 1024 * 1024), middlewares=guards)
        app.add_routes([web.get("/", self.get_root)])
        for prefix in ("", "/api"):
            app.add_routes(
                [
                    web.get(f"{prefix}/system_stats", self.get_system_stats),
                    web.get(f"{prefix}/object_info", self.get_object_info),
                    web.get(f"{prefix}/object_info/{{node}}", self.get_object_info),
                    web.get(f"{prefix}/models", self.get_models),
                    web.get(f"{prefix}/models/{{kind}}", self.get_models),
                    web.get(f"{prefix}/prompt", self.get_prompt),
                    web.post(f"{prefix}/prompt", self.post_prompt),
                    web.get(f"{prefix}/queue", self.get_queue),
                    web.post(f"{prefix}/queue", self.post_queue),
                    web.post(f"{prefix}/interrupt", self.post_interrupt),
                    web.post(f"{prefix}/free", self.post_free),
                    web.get(f"{prefix}/history", self.get_history),
                    web.get(f"{prefix}/history/{{prompt_id}}", self.get_history),
                    web.post(f"{prefix}/upload/image", self.post_upload),
                    web.get(f"{prefix}/view", self.get_view),
                    web.get(f"{prefix}/ws", self.get_ws),
                ]
            )
        return app

    async def run(self) -> None:
        """Listen on each address, and work through the queue."""
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        for address in self.args.listen.split(","):
            await self._listen(runner, address)
        await self.prompts.work()

    async def _listen(self, runner: web.AppRunner, address: str) -> None:
        port = self.args.port
        try:
            await web.TCPSite(runner, address, port).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            log.error(  # noqa: TRY400 - a sentence, as the real one's; no traceback
                "Port %s is already in use on address %s. Please close the other application or use a "
                "different port with --port.",
                port,
                address,
            )
            raise SystemExit(1) from None
        log.info("To see the GUI go to: http://%s:%s", f"[{address}]" if ":" in address else address, port)


@web.middleware
async def own_origin_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse what a page of another site asks for, as create_origin_only_middleware does, links included."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return web.Response(status=HTTPStatus.FORBIDDEN)
    host = urlsplit(f"//{request.headers.get('Host', '').lower()}")
    origin = urlsplit(request.headers.get("Origin", "").lower())
    ours: str | None = host.netloc if origin.port else host.hostname
    theirs: str | None = origin.netloc if host.port else origin.hostname
    if ours and theirs and _is_loopback(host.hostname) and ours != theirs:
        log.warning(
            "WARNING: request with non matching host and origin %s != %s, returning 403", ours, theirs
        )
        return web.Response(status=HTTPStatus.FORBIDDEN)
    return web.Response() if request.method == "OPTIONS" else await handler(request)


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _inside(path: Path, top: Path) -> bool:
    return os.path.commonpath((top, os.path.normpath(path))) == str(top)


def _described(name: str, kind: type) -> dict[str, Any]:
    """Return what /object_info says of a node of others, as node_info of server.py makes it."""
    inputs = kind.INPUT_TYPES()  # type: ignore[attr-defined]
    return {
        "input": inputs,
        "input_order": {group: list(names) for group, names in inputs.items()},
        "output": list(getattr(kind, "RETURN_TYPES", ())),
        "name": name,
        "display_name": name,
        "category": getattr(kind, "CATEGORY", "sd"),
        "output_node": getattr(kind, "OUTPUT_NODE", False),
    }


def serve(
    args: argparse.Namespace,
    version: str,
    folders: Folders,
    found: list[dict[str, Any]],
    classes: dict[str, type],
) -> int:
    """Serve until SIGINT, which is the clean end; on SIGTERM the process just dies, like the real one."""
    if not args.dont_print_server:
        log.info("Starting server\n")
    try:
        asyncio.run(Server(args, version, folders, found, classes).run())
    except KeyboardInterrupt:
        log.info("\nStopped server")
    return 0
