"""ComfyUI's HTTP and websocket interface: upload, queue, wait, fetch what came out.

Source: server.py, execution.py and main.py of ComfyUI 0.33.0. comfy/answers.py reads what the answers hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import quote

import aiohttp

from comfy import answers
from comfy.encoding import pieces
from comfy.failure import FAILED, TIMED_OUT, UNREACHABLE, ComfyError
from comfy.limits import not_too_slow, read_body, without_redirects
from comfy.pictures import reason
from comfy.progress import PromptProgress
from comfy.retry import AWAY, TRIES, PassingError, patiently, pause
from pod.net.retry import PASSING
from pod.util import bounded_json
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from types import TracebackType

    from comfy.answers import Event, Frame, Outcome, Output, Problem
    from comfy.pictures import Picture

    _Socket = aiohttp.ClientWebSocketResponse[Literal[False]]

_ANSWER: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_HEARTBEAT: Final = 20.0  # seconds between pings: a dead connection is noticed after one and a half of them
_ASK_AGAIN: Final = 5.0  # seconds without a word after which the history is asked
_DRAIN: Final = 30.0  # seconds without a word after which pictures of a prompt that has ended come no more
_PATIENCE: Final = 60.0  # seconds that ComfyUI may be away while a prompt runs: it may be restarting
_LARGEST_TEXT: Final = 8 << 20  # bytes of a text message: what a node shows
_LARGEST_MESSAGE: Final = 256 << 20  # bytes: a picture of 8192 x 8192 as PNG
# Asked of the websocket in its first message: pictures that say which node they are of (server.py).
_FEATURES: Final = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
_PROMPT_ID: Final = re.compile(r"[ -~]{1,100}")  # it is a UUID
_CANCEL_SECONDS: Final = 10.0
_OK, _TOO_LARGE, _TOO_MANY = 200, 413, 429
_LOGIN = (401, 403)
_NOT_TAKEN = (429, 503)  # of a proxy that has not passed the request on


class Client:
    """One session with a ComfyUI. Use it as an async context manager.

    Args:
        server: Its address, such as http://127.0.0.1:8188.
        login: User and password of the login in front of it.
        trusted: Take its certificate as it is: the pod's own is for other names than the pod's address.
        say: Told of the events of the prompt.
        take: Given the pictures of the nodes that give them out by the websocket alone.
    """

    def __init__(
        self,
        server: str,
        login: tuple[str, str] | None,
        say: Callable[[Event], None],
        *,
        take: Callable[[str, Frame], Any] | None = None,
        trusted: bool = False,
    ) -> None:
        self._server = server.rstrip("/")
        self._say = say
        self._take = take
        self._id = str(uuid.uuid4())
        self._socket: _Socket | None = None
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._disconnect()
        await self._session.close()

    async def upload(self, picture: Picture, *, subfolder: str = "", overwrite: bool = False) -> str:
        """Upload a file; returns the name that a workflow uses for it. Raises ComfyError.

        ComfyUI gives another name when there is a different file of this one, unless it may overwrite it.
        """
        form = aiohttp.FormData(quote_fields=False)  # or a name with a blank or `=` would become another
        own = "".join(each if each.isprintable() else "_" for each in picture.name)
        form.add_field("image", picture.file, filename=own, content_type="application/octet-stream")
        form.add_field("type", "input")
        form.add_field("subfolder", subfolder)
        form.add_field("overwrite", "true" if overwrite else "false")
        status, answer = await self._ask("POST", "/upload/image", data=form)
        if status == _TOO_LARGE:
            raise ComfyError(
                f"{shown(picture.name)} is larger than this ComfyUI takes: --max-upload-size=MB in "
                "COMFYUI_ARGS raises that.",
                FAILED,
            )
        name = answer.get("name") if isinstance(answer, dict) else None
        if status != _OK or not isinstance(name, str) or not name:
            raise ComfyError(f"ComfyUI did not take {shown(picture.name)} (it answered {status}).", FAILED)
        folder = answer.get("subfolder")
        return f"{folder}/{name}" if isinstance(folder, str) and folder else name

    async def run(
        self, nodes: dict[str, Any], limit: float | None = None, pictured: frozenset[str] = frozenset()
    ) -> Outcome:
        """Queue a workflow and wait for its end. Whatever stops the waiting takes it out of the queue.

        Args:
            nodes: The workflow.
            limit: Seconds that it may take.
            pictured: The nodes whose pictures come by the websocket alone.

        Raises ComfyError when it is refused as a whole or takes too long. What is refused or fails in part is
        among the outcome's problems, and so is what came by the websocket and was lost.
        """
        # Before the prompt is queued, or its first events are missed.
        socket = await patiently(self._connect)
        following = PromptProgress(str(uuid.uuid4()), pictured)
        try:
            async with asyncio.timeout(limit):
                refused = await self._queue(nodes, following)
                record = await self._wait(socket, following)
        except TimeoutError:
            await self._cancel(following.prompt_id)
            why = f"The prompt has not ended after {limit:.0f} s and was stopped."
            raise ComfyError(why, TIMED_OUT) from None
        except BaseException as stopped:
            if not isinstance(stopped, ComfyError):
                await self._cancel(following.prompt_id)
            raise
        found = answers.outcome(following.prompt_id, record)
        succeeded = not found.problems
        found.problems[:0] = refused
        if succeeded:
            found.problems += following.lost(
                {node for problem in refused for node in (problem.node, *problem.stops)}
            )
        return found

    async def content(self, output: Output) -> AsyncGenerator[bytes, None]:
        """Fetch a file in pieces. Raises ComfyError."""
        for number in range(TRIES):
            try:
                async with self._request("GET", "/view", params=output.query) as answer:
                    if answer.status == _OK:
                        async for chunk in not_too_slow(pieces(answer), shown(output.filename)):
                            yield chunk
                        return
                    if answer.status not in PASSING or number == TRIES - 1:
                        raise ComfyError(
                            f"ComfyUI does not serve {shown(output.filename)} ({answer.status}).", FAILED
                        )
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise self._away(error) from None
            await asyncio.sleep(pause(number))

    async def _queue(self, nodes: dict[str, Any], following: PromptProgress) -> list[Problem]:
        """Queue a workflow; returns which of its nodes are refused. Raises ComfyError where none is taken."""
        body = {"prompt": nodes, "client_id": self._id, "prompt_id": following.prompt_id}
        status, answer = await self._submit(body, following.prompt_id)
        given = answer.get("prompt_id") if isinstance(answer, dict) else None
        if status != _OK or not isinstance(given, str) or not _PROMPT_ID.fullmatch(given):
            raise ComfyError(f"ComfyUI refused the workflow: {answers.refusal(answer, status)}.", FAILED)
        following.prompt_id = given
        return answers.refused(answer)

    async def _submit(self, body: dict[str, Any], prompt_id: str) -> tuple[int, Any]:
        """Send a prompt, again only where a proxy has refused it and ComfyUI does not know it."""
        for number in range(TRIES):
            try:
                return await self._ask("POST", "/prompt", json=body)
            except PassingError as refused:
                if refused.status not in _NOT_TAKEN or number == TRIES - 1:
                    raise
            await asyncio.sleep(pause(number))
            if await self._is_queued(prompt_id) or await self._history(prompt_id):
                lost = {"errors": ["a proxy lost ComfyUI's answer, which says what of it is refused"]}
                return _OK, {"prompt_id": prompt_id, "node_errors": {"?": lost}}
        raise AssertionError

    async def _wait(self, socket: _Socket, following: PromptProgress) -> Any:
        """Follow the events until the prompt is in the history, which alone says that it has ended."""
        missed = 0
        while True:
            connected = await self._follow(socket, following, _ASK_AGAIN)
            if not connected:
                socket = await self._again()
            # In this order: a prompt that ends in between is in the history by then.
            waiting = await self._is_queued(following.prompt_id)
            if record := await self._history(following.prompt_id):
                if connected and following.pictured and not following.over:
                    await self._follow(socket, following, _DRAIN)
                return record
            missed = 0 if waiting else missed + 1
            if missed > 1:  # one answer may be that of another worker behind a proxy, or come from a cache
                raise ComfyError(
                    "ComfyUI has neither run nor kept the prompt: it was deleted from the queue, or ComfyUI "
                    "was restarted, and its log says why.",
                    FAILED,
                )

    async def _follow(self, socket: _Socket, following: PromptProgress, patience: float) -> bool:
        """Pass events on until the prompt's end (True), a silence (True), or the connection's end (False)."""
        while True:
            try:
                message = await socket.receive(timeout=patience)
            except TimeoutError:
                return True
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                _check_size(message.data)
                return False
            if message.type is aiohttp.WSMsgType.BINARY:
                await self._picture(message.data, following)
            elif message.type is aiohttp.WSMsgType.TEXT:
                if len(message.data) > _LARGEST_TEXT:
                    raise ComfyError(f"ComfyUI sent a text of more than {_LARGEST_TEXT >> 20} MiB.", FAILED)
                if not (event := answers.event(message.data)):
                    continue
                if event.data.get("prompt_id") != following.prompt_id:
                    continue
                self._say(event)
                following.note(event)
                if following.over:
                    return True

    async def _picture(self, message: bytes, following: PromptProgress) -> None:
        if (frame := answers.frame(message)) and (node := following.of(frame)) and self._take:
            await self._take(node, frame)

    async def _again(self) -> _Socket:
        """Connect again, as soon as ComfyUI is back."""
        end = time.monotonic() + _PATIENCE
        while True:
            await asyncio.sleep(pause(0))
            try:
                return await self._connect()
            except ComfyError:
                if time.monotonic() > end:
                    raise

    async def _is_queued(self, prompt_id: str) -> bool:
        try:
            queue = await self._insist("/queue")
        except ComfyError as error:
            if error.exit_code != FAILED:
                raise
            return True  # the workflows of others may make it too long to be read
        return answers.is_queued(queue, prompt_id)

    async def _history(self, prompt_id: str) -> Any:
        return (await self._insist(f"/history/{quote(prompt_id, safe='')}")).get(prompt_id)

    async def _insist(self, path: str) -> dict[str, Any]:
        """Ask again while ComfyUI is away, or what answers is not ComfyUI: a proxy loses it for a moment."""
        end = time.monotonic() + _PATIENCE
        for number in itertools.count():
            try:
                status, answer = await self._ask("GET", path)
                if status == _OK and isinstance(answer, dict):
                    return answer
                said = f"ComfyUI's answer to /{path.split('/')[1]} cannot be used ({status})."
                failure = ComfyError(said, UNREACHABLE)
            except ComfyError as error:
                failure = error
            if failure.exit_code != UNREACHABLE or time.monotonic() > end:
                raise failure
            await asyncio.sleep(pause(number))
        raise AssertionError

    async def _cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or interrupt it. What has ended by itself is left alone."""
        with contextlib.suppress(ComfyError, TimeoutError):
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self._ask("POST", "/queue", json={"delete": [prompt_id]})
                await self._ask("POST", "/interrupt", json={"prompt_id": prompt_id})

    async def _connect(self) -> _Socket:
        await self._disconnect()
        try:
            self._socket = await self._session.ws_connect(
                f"{self._server}/ws",
                params={"clientId": self._id},
                heartbeat=_HEARTBEAT,
                max_msg_size=_LARGEST_MESSAGE,
                decode_text=False,  # its size is looked at first
            )
            await self._socket.send_json(_FEATURES)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._away(error) from None
        return self._socket

    async def _disconnect(self) -> None:
        if self._socket:
            await self._socket.close()

    def _request(self, method: str, path: str, **options: Any) -> Any:
        # A redirect leads elsewhere, or to a page: ComfyUI itself sends none.
        return self._session.request(method, f"{self._server}{path}", allow_redirects=False, **options)

    async def _ask(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        """Send a request; returns status and JSON, None where there is none. Raises ComfyError."""
        try:
            async with self._request(method, path, **body) as answer:
                status, kind = answer.status, answer.content_type
                self._check(answer)
                data = await read_body(answer, path)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._away(error) from None
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

    def _away(self, error: Exception) -> ComfyError:
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


def _check_size(error: object) -> None:
    if isinstance(error, aiohttp.WebSocketError) and error.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
        raise ComfyError(f"ComfyUI sent a message of more than {_LARGEST_MESSAGE >> 20} MiB.", FAILED)
