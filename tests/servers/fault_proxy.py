"""A proxy before a real registry: passes requests on, and plays faults at its edge.

It speaks HTTP, so that it can answer in the registry's place (`status`), cut a connection after some bytes of
a body (`cut`), keep an answer to itself (`mute`), and want a bearer token that expires (`expire`).
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
from typing import Self

from servers.base import CutError, QuietHandler, QuietServer
from servers.registry import Fault

_HOPS = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class FaultProxy:
    """A context manager. `tokens`: whether bearer tokens are wanted; its own service gives them to anyone."""

    def __init__(self, target: str, *faults: Fault, tokens: bool = False) -> None:
        self.target = target
        self.faults = list(faults)
        self.tokens = tokens
        self.valid: set[str] = set()
        self.numbers = itertools.count()
        self.asked: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self._server = _Server(self)
        self.host = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def spent(self) -> bool:
        """Whether all faults have been played."""
        return not any(fault.times > 0 for fault in self.faults)

    def take(self, method: str, path: str) -> Fault:
        """Note a request, and return what befalls it."""
        with self.lock:
            self.asked.append((method, path))
            for fault in self.faults:
                if fault.times and fault.method in ("", method) and fault.match in path:
                    fault.times -= 1
                    return fault
        return Fault("nothing")


class _Server(QuietServer):
    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy


class _Handler(QuietHandler):
    server: _Server

    def do_any(self) -> None:
        proxy = self.server.proxy
        if self.path.startswith("/token"):
            token = f"token-{next(proxy.numbers)}"
            proxy.valid.add(token)
            self._answer(200, json.dumps({"token": token, "expires_in": 3600}).encode())
            return
        fault = proxy.take(self.command, self.path)
        if fault.kind == "expire":
            proxy.valid.clear()
        try:
            if (
                proxy.tokens
                and self.headers.get("Authorization", "").removeprefix("Bearer ") not in proxy.valid
            ):
                realm = f'Bearer realm="http://{proxy.host}/token",service="gate"'
                self._answer(401, _error("UNAUTHORIZED"), {"WWW-Authenticate": realm})
            elif fault.kind == "status":
                wait = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
                self._answer(fault.status, _error("SCRIPTED"), wait)
            else:
                self._pass_on(fault)
        except CutError:
            self.reset()

    def _pass_on(self, fault: Fault) -> None:
        with contextlib.closing(http.client.HTTPConnection(self.server.proxy.target, timeout=60)) as onward:
            onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
            for name, value in self.headers.items():
                if name.lower() not in ("authorization", "connection"):
                    onward.putheader(name, value)
            onward.endheaders()
            passed = 0
            for block in self.blocks():
                passed += len(block)
                cut = fault.kind == "cut" and passed >= fault.after
                data = block[: len(block) - (passed - fault.after)] if cut else block
                if data:
                    onward.send(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
                if cut:
                    raise CutError
            if chunked:
                onward.send(b"0\r\n\r\n")
            answer = onward.getresponse()
            body = answer.read()
            if fault.kind == "mute":
                raise CutError
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOPS}
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self._answer(answer.status, body, headers, length)

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, length: str | None = None
    ) -> None:
        if not self.body_read:
            for _ in self.blocks():
                pass
        self.body_read = False
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _error(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": "as the script has it"}]}).encode()


for _method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
    setattr(_Handler, f"do_{_method}", _Handler.do_any)
