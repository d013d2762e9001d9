"""/ping: 204 while ComfyUI starts, 200 while it serves, 503 when it has served and does not answer.

RunPod's load balancer asks PORT_HEALTH (PORT unless set) for HEALTH_CHECK_PATH (/ping): 200 is healthy, 204
is initialising, all else is unhealthy. It is answered there, by IPv4 and IPv6, and on 127.0.0.1:LOCAL_PORT,
to which the door before ComfyUI passes it on. Anybody may ask; nothing but the status is said.
Source: docs.runpod.io/serverless/load-balancing
"""

from __future__ import annotations

import errno
import socket
import threading
import time

from pod.services.ping_config import PATH, PingConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # in most containers
_FRESH = 1.0  # seconds for which an answer of ComfyUI is not asked for again
STARTING, SERVING, FAILING = 204, 200, 503


class HealthCache:
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


def serve(wish: PingConfig, pulse: HealthCache, say: Callable[[str], None]) -> None:
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
