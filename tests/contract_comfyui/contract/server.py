"""ComfyUI's HTTP server, as far as pods and their tests speak to it.

Source: server.py and execution.py of ComfyUI 0.33.0; keys and messages as recorded from it.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import sys
import threading
import uuid
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract import devices

if TYPE_CHECKING:
    import argparse

    from contract.folders import Folders

log = logging.getLogger(__name__)
_RECORDED = Path(__file__).parent / "recorded"


class State:
    """What the routes answer from."""

    def __init__(self, version: str, folders: Folders, found: list[dict[str, Any]]) -> None:
        self.version = version
        self.folders = folders
        self.devices = found
        self.number = 0

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
        return dict(nodes)

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


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    protocol_version = "HTTP/1.1"
    state: State

    def do_GET(self) -> None:
        """Answer what is asked."""
        path = self.path.partition("?")[0].removeprefix("/api")
        state = self.state
        if path == "/system_stats":
            self._json(state.system_stats())
        elif path == "/object_info":
            self._json(state.object_info())
        elif path.startswith("/object_info/"):
            name = path.rsplit("/", 1)[1]
            self._json({key: node for key, node in state.object_info().items() if key == name})
        elif path == "/models":
            self._json(list(state.folders.kinds))
        elif path.startswith("/models/") and path.split("/")[2] in state.folders.kinds:
            self._json(state.folders.kinds[path.split("/")[2]].files())
        elif path == "/prompt":
            self._json({"exec_info": {"queue_remaining": 0}})
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Take a prompt."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.removeprefix("/api") != "/prompt":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        log.info("got prompt")
        number, self.state.number = self.state.number, self.state.number + 1
        if error := self.state.refusal(json.loads(body).get("prompt")):
            log.warning("invalid prompt: %s", error)
            self._json({"error": error, "node_errors": {}}, HTTPStatus.BAD_REQUEST)
            return
        self._json({"prompt_id": str(uuid.uuid4()), "number": number, "node_errors": {}})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name for it
        """ComfyUI keeps no access log."""

    def _json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def serve(args: argparse.Namespace, version: str, folders: Folders, found: list[dict[str, Any]]) -> int:
    """Serve until SIGINT, which is the clean end; on SIGTERM the process just dies, like the real one."""
    handler = type("Bound", (Handler,), {"state": State(version, folders, found)})
    try:
        if not args.dont_print_server:
            log.info("Starting server\n")
        servers = [_listen(address, args.port, handler) for address in args.listen.split(",")]
        for server in servers[1:]:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        servers[0].serve_forever()
    except KeyboardInterrupt:
        log.info("\nStopped server")
    return 0


class Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up, as aiohttp."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what is not a client's doing."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Server6(Server):
    """The same on IPv6 alone: ComfyUI listens on each address by itself."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        """Leave IPv4 to the other one."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()


def _listen(address: str, port: int, handler: type[Handler]) -> Server:
    six = ":" in address
    try:
        server = (Server6 if six else Server)((address, port), handler)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        log.error(  # noqa: TRY400 - a sentence, as the real one's; no traceback
            "Port %s is already in use on address %s. Please close the other application or use a different "
            "port with --port.",
            port,
            address,
        )
        raise SystemExit(1) from None
    log.info("To see the GUI go to: http://%s:%s", f"[{address}]" if six else address, port)
    return server
