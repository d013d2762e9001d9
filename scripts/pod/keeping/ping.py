"""/ping: 204 while ComfyUI starts, 200 while it serves, 503 when it has served and does not answer.

RunPod's load balancer asks PORT_HEALTH (PORT unless set) for HEALTH_CHECK_PATH (/ping): 200 is healthy, 204
is initialising, all else is unhealthy. It is answered there, by IPv4 and IPv6, and on 127.0.0.1:LOCAL_PORT,
to which the door before ComfyUI passes it on. Anybody may ask; nothing but the status is said.
Source: docs.runpod.io/serverless/load-balancing
"""

from __future__ import annotations

import errno
import re
import socket
import threading
import time
from dataclasses import dataclass
from types import MappingProxyType

from pod.doors.access import LOCAL_PORT
from pod.settings import SettingError, port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATH = "/ping"
_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # in most containers
_FRESH = 1.0  # seconds for which an answer of ComfyUI is not asked for again
STARTING, SERVING, FAILING = 204, 200, 503


_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/-]*")
_EVERY = ("0.0.0.0", "::")  # noqa: S104 - the load balancer comes from outside


@dataclass(frozen=True)
class Wish:
    """Where `/ping` is asked for: addresses, the path, and whether that is asked for at ComfyUI's port."""

    addresses: tuple[tuple[str, int], ...] = ()
    path: str = PATH
    at_the_door: bool = False


def read(environ: Mapping[str, str], comfyui: int, others: Mapping[str, int] = MappingProxyType({})) -> Wish:
    """Return what the environment asks for. Raises SettingError.

    Args:
        environ: The pod's environment.
        comfyui: The port that people come to, where the door answers.
        others: What else listens, by name; a port of theirs is refused.
    """
    balanced = bool(environ.get("RUNPOD_ENDPOINT_ID"))
    default = port("PORT", environ.get("PORT"), 0) if balanced else 0
    asked = port("PORT_HEALTH", environ.get("PORT_HEALTH"), default)
    path = environ.get("HEALTH_CHECK_PATH", "").strip() or PATH
    if not _PLAIN_PATH.fullmatch(path):
        raise SettingError(
            f"HEALTH_CHECK_PATH={path!r} is no plain path: give one such as {PATH}, of letters, digits, ._-/."
        )
    addresses = [("127.0.0.1", LOCAL_PORT)]
    if asked and asked != comfyui:
        if other := next((name for name, taken in others.items() if taken == asked), None):
            name = "PORT_HEALTH" if environ.get("PORT_HEALTH", "").strip() else "PORT"
            raise SettingError(f"{name} and {other} are both {asked}: give one of them another port.")
        addresses = [each for each in addresses if each[1] != asked]
        addresses += [(every, asked) for every in _EVERY]
    return Wish(tuple(addresses), path, at_the_door=asked == comfyui)


class Pulse:
    """The status to answer with; ComfyUI is asked once a second at most, however often we are."""

    def __init__(self, problem: Callable[[], str | None], served: Callable[[], bool]) -> None:
        self._problem = problem
        self._served = served
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._status = STARTING

    def status(self) -> int:
        """Return SERVING, STARTING or FAILING."""
        with self._lock:
            if time.monotonic() - self._asked > _FRESH:
                self._status = self._ask()
                self._asked = time.monotonic()
            return self._status

    def _ask(self) -> int:
        if self._problem() is None:
            return SERVING
        return FAILING if self._served() else STARTING


def serve(wish: Wish, pulse: Pulse, say: Callable[[str], None]) -> None:
    """Answer in threads, for as long as the process lives; an address that is taken costs a sentence."""
    import http.server  # noqa: PLC0415 - beside ComfyUI's start

    class Answer(http.server.BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            known = self.path.partition("?")[0] in (PATH, wish.path)
            self.send_response(pulse.status() if known else 404)
            self.send_header("Content-Length", "0")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def version_string(self) -> str:
            return "podkiln"

        def log_message(self, *_: object) -> None:
            """Say nothing: load balancers ask every few seconds."""

    class ServerOfIPv6(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6

        def server_bind(self) -> None:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a server of its own
            super().server_bind()

    for address in wish.addresses:
        kind = ServerOfIPv6 if ":" in address[0] else http.server.ThreadingHTTPServer
        try:
            server = kind(address, Answer)
        except OSError as error:
            if error.errno not in _NO_IPV6 or ":" not in address[0]:
                say(f"{wish.path} cannot be answered on port {address[1]}: {error.strerror}.")
            continue
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
