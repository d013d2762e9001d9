"""/ping: 204 while ComfyUI starts, 200 while it serves, 503 when it has served and does not answer.

RunPod's load balancer asks PORT_HEALTH (PORT unless set) for HEALTH_CHECK_PATH (/ping): 200 is healthy, 204
is initialising, all else is unhealthy. It is answered there, and on 127.0.0.1:LOCAL_PORT when there is a
login before ComfyUI, whose proxy passes /ping on to it. Anybody may ask; nothing but the status is said.
Source: docs.runpod.io/serverless/load-balancing
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from pod.settings import port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATH = "/ping"
LOCAL_PORT = 8190
_FRESH = 1.0  # seconds for which an answer of ComfyUI is not asked for again
STARTING, SERVING, FAILING = 204, 200, 503


@dataclass(frozen=True)
class Wish:
    """Where `/ping` is asked for: addresses to listen on, and the path. Warnings are sentences."""

    addresses: tuple[tuple[str, int], ...] = ()
    path: str = PATH
    warnings: tuple[str, ...] = ()


def read(environ: Mapping[str, str], comfyui: int, *, login: bool) -> Wish:
    """Return what the environment asks for. Raises SettingError.

    Args:
        environ: The pod's environment.
        comfyui: The port that people come to.
        login: Whether a login listens there, and not ComfyUI itself.
    """
    balanced = bool(environ.get("RUNPOD_ENDPOINT_ID"))
    default = port("PORT", environ.get("PORT"), 0) if balanced else 0
    asked = port("PORT_HEALTH", environ.get("PORT_HEALTH"), default)
    path = environ.get("HEALTH_CHECK_PATH", "").strip() or PATH
    addresses = [("127.0.0.1", LOCAL_PORT)] if login else []
    warnings = []
    if asked and asked == comfyui and not login:
        name = "PORT_HEALTH" if environ.get("PORT_HEALTH", "").strip() else "PORT"
        warnings.append(
            f"{name}={asked} is ComfyUI's own port, which knows no {path}: set PORT_HEALTH to another "
            f"one, such as {LOCAL_PORT}, or WEB_USER and WEB_PASSWORD for a login that answers {PATH} there"
        )
    elif asked and asked != comfyui:
        addresses = [each for each in addresses if each[1] != asked]
        addresses.append(("0.0.0.0", asked))  # noqa: S104 - the load balancer comes from outside
    return Wish(tuple(addresses), path, tuple(warnings))


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
    import http.server  # noqa: PLC0415 - only where somebody asks

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

    for address in wish.addresses:
        try:
            server = http.server.ThreadingHTTPServer(address, Answer)
        except OSError as error:
            say(f"{wish.path} cannot be answered on port {address[1]}: {error.strerror}.")
            continue
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
