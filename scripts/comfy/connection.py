"""The connection to a ComfyUI: its requests and its websocket, and what is said where they fail.

Source: server.py of ComfyUI 0.33.0; docs.aiohttp.org/en/stable/client_reference.html.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, Literal

import aiohttp

from comfy import answers
from comfy.failure import FAILED, UNREACHABLE, ComfyError
from comfy.limits import read_body, without_redirects
from comfy.pictures import reason
from comfy.retry import AWAY, PassingError, pause
from pod.net.retry import PASSING
from pod.util import bounded_json
from pod.util.printable import shown

if TYPE_CHECKING:
    Socket = aiohttp.ClientWebSocketResponse[Literal[False]]

OK: Final = 200
_PATIENCE: Final = 60.0  # seconds that ComfyUI may be away while a prompt runs: it may be restarting
_ANSWER: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_HEARTBEAT: Final = 20.0  # seconds between pings: a dead connection is noticed after one and a half of them
_LARGEST_MESSAGE: Final = 256 << 20  # bytes: a picture of 8192 x 8192 as PNG
# Asked of the websocket in its first message: pictures that say which node they are of (server.py).
_FEATURES: Final = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
_TOO_MANY: Final = 429
_LOGIN: Final = (401, 403)


class Connection:
    """One session with a ComfyUI; `close` ends it.

    Args:
        server: Its address, such as http://127.0.0.1:8188.
        login: User and password of the login in front of it.
        trusted: Take its certificate as it is: the pod's own is for other names than the pod's address.
    """

    def __init__(self, server: str, login: tuple[str, str] | None, *, trusted: bool = False) -> None:
        self.client_id = str(uuid.uuid4())
        self._server = server.rstrip("/")
        self._socket: Socket | None = None
        self._session = aiohttp.ClientSession(
            headers={
                "Accept-Encoding": "identity",  # what is compressed may become anything
                **({"Authorization": aiohttp.encode_basic_auth(*login)} if login else {}),
            },
            connector=aiohttp.TCPConnector(ssl=not trusted),
            # A pod's nginx knows logged-in clients by a cookie, and exempts them from its rate limit.
            cookie_jar=aiohttp.CookieJar(unsafe=True),  # from an address that is a number, too
            trace_configs=[without_redirects()],
            timeout=_ANSWER,
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close the websocket and all connections."""
        await self._disconnect()
        await self._session.close()

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Send a request; returns aiohttp's context manager of the answer."""
        # A redirect leads elsewhere, or to a page: ComfyUI itself sends none.
        return self._session.request(method, f"{self._server}{path}", allow_redirects=False, **options)

    async def ask(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        """Send a request; returns status and JSON, None where there is none. Raises ComfyError."""
        try:
            async with self.request(method, path, **body) as answer:
                status, kind = answer.status, answer.content_type
                self._check(answer)
                data = await read_body(answer, path)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self.away(error) from None
        if kind == "text/html":
            raise ComfyError(
                f"{self._server} answers with a page ({status}), so it is not ComfyUI, or a proxy "
                "answers for it.",
                UNREACHABLE,
            )
        value = answers.parsed(data) if kind.endswith("json") else None
        if value is None and data and kind.endswith("json"):
            if bounded_json.holds_more(data, answers.MOST_VALUES):
                raise ComfyError(
                    f"ComfyUI answers {path.split('/')[1]} with more than {answers.MOST_VALUES} values.",
                    FAILED,
                )
            raise ComfyError(
                f"{self._server} answers {path.partition('?')[0]} with broken JSON.", UNREACHABLE
            )
        return status, value

    def _check(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status in _LOGIN:
            raise ComfyError(
                f"{self._server} requires a login: set WEB_USER and WEB_PASSWORD as the pod has them.",
                UNREACHABLE,
            )
        if 300 <= answer.status < 400:  # noqa: PLR2004 - HTTP's redirects
            to = shown(answer.headers.get("Location", "nowhere"))
            raise ComfyError(f"{self._server} redirects to {to}: give that as --server.", UNREACHABLE)
        if answer.status == _TOO_MANY:
            raise PassingError(
                f"{self._server} rejects all logins for a moment after too many tries: try again.",
                answer.status,
            )
        if answer.status in AWAY:
            raise PassingError(
                f"ComfyUI cannot be reached at {self._server}: a proxy answers {answer.status}.",
                answer.status,
            )

    def away(self, error: Exception) -> ComfyError:
        """Return the error for a connection that failed."""
        if isinstance(error, aiohttp.WSServerHandshakeError) and error.status in _LOGIN:
            why = "it requires a login: set WEB_USER and WEB_PASSWORD as the pod has them"
        elif isinstance(error, aiohttp.WSServerHandshakeError):
            why = f"it answers {error.status} to a websocket"
        else:
            why = reason(error)
        said = f"ComfyUI cannot be reached at {self._server}: {why}."
        if isinstance(error, aiohttp.WSServerHandshakeError) and error.status in PASSING:
            return PassingError(said, error.status)
        return ComfyError(said, UNREACHABLE)

    async def insist(self, path: str) -> dict[str, Any]:
        """Ask again while ComfyUI is away, or what answers is not ComfyUI: a proxy loses it for a moment."""
        end = time.monotonic() + _PATIENCE
        for number in itertools.count():
            try:
                status, answer = await self.ask("GET", path)
                if status == OK and isinstance(answer, dict):
                    return answer
                said = f"ComfyUI's answer to /{path.split('/')[1]} cannot be used ({status})."
                failure = ComfyError(said, UNREACHABLE)
            except ComfyError as error:
                failure = error
            if failure.exit_code != UNREACHABLE or time.monotonic() > end:
                raise failure
            await asyncio.sleep(pause(number))
        raise AssertionError

    async def websocket(self) -> Socket:
        """Connect to its websocket, in the place of an earlier connection. Raises ComfyError."""
        await self._disconnect()
        try:
            self._socket = await self._session.ws_connect(
                f"{self._server}/ws",
                params={"clientId": self.client_id},
                heartbeat=_HEARTBEAT,
                max_msg_size=_LARGEST_MESSAGE,
                decode_text=False,  # its size is looked at first
            )
            await self._socket.send_json(_FEATURES)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self.away(error) from None
        return self._socket

    async def reconnected(self) -> Socket:
        """Connect to the websocket again, as soon as ComfyUI is back. Raises ComfyError."""
        end = time.monotonic() + _PATIENCE
        while True:
            await asyncio.sleep(pause(0))
            try:
                return await self.websocket()
            except ComfyError:
                if time.monotonic() > end:
                    raise

    async def _disconnect(self) -> None:
        if self._socket:
            await self._socket.close()


def check_size(error: object) -> None:
    """Raise ComfyError where a websocket has ended because of a message that is too large."""
    if isinstance(error, aiohttp.WebSocketError) and error.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
        raise ComfyError(f"ComfyUI sent a message of more than {_LARGEST_MESSAGE >> 20} MiB.", FAILED)
