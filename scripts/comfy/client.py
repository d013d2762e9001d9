"""ComfyUI's HTTP and websocket interface: upload, queue, wait, fetch what came out.

Source: server.py, execution.py and main.py of ComfyUI 0.33.0.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import textwrap
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

from comfy.failure import CANNOT_SAVE, FAILED, TIMED_OUT, UNREACHABLE, ComfyError
from comfy.pictures import reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from comfy.pictures import Picture

_ANSWER: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_HEARTBEAT: Final = 20.0  # seconds between pings: a dead connection is noticed after one and a half of them
_ASK_AGAIN: Final = 5.0  # seconds without a word after which the history is asked
_PAUSE: Final = 1.0
_LONGEST_MESSAGE: Final = 400  # characters: torch lists each tensor that does not fit
_PATIENCE: Final = 60.0  # seconds that ComfyUI may be away while a prompt runs: it may be restarting


@dataclass(frozen=True)
class Output:
    """A file that a node made, as ComfyUI names it."""

    node: str
    filename: str
    subfolder: str
    type: str

    @classmethod
    def of(cls, node: str, item: dict[str, Any]) -> Self:
        """Read one of a node's files in the history."""
        return cls(
            node, str(item["filename"]), str(item.get("subfolder", "")), str(item.get("type", "output"))
        )

    @property
    def query(self) -> dict[str, str]:
        """What /view is asked."""
        return {"filename": self.filename, "subfolder": self.subfolder, "type": self.type}


@dataclass
class Outcome:
    """How a prompt ended. `texts`: what nodes showed as text."""

    prompt_id: str
    outputs: list[Output] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)


class Client:
    """One session with a ComfyUI. Use it as an async context manager.

    Args:
        server: Its address, such as http://127.0.0.1:8188.
        login: User and password of the login in front of it.
        trusted: Take its certificate as it is: the pod's own is for other names than the pod's address.
        say: Told what goes on: the kind of event of the websocket, and its data.
    """

    def __init__(
        self,
        server: str,
        login: tuple[str, str] | None,
        say: Callable[[str, dict[str, Any]], None],
        *,
        trusted: bool = False,
    ) -> None:
        self._server = server.rstrip("/")
        self._say = say
        self._id = str(uuid.uuid4())
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._session = aiohttp.ClientSession(
            headers={"Authorization": aiohttp.encode_basic_auth(*login)} if login else None,
            connector=aiohttp.TCPConnector(ssl=not trusted),
            timeout=_ANSWER,
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
        form = aiohttp.FormData()
        form.add_field("image", picture.file, filename=picture.name, content_type="application/octet-stream")
        form.add_field("type", "input")
        form.add_field("subfolder", subfolder)
        form.add_field("overwrite", "true" if overwrite else "false")
        status, answer = await self._ask("POST", "/upload/image", data=form)
        if status == 413:  # noqa: PLR2004 - HTTP's Content Too Large
            raise ComfyError(
                f"{picture.name} is larger than this ComfyUI takes: --max-upload-size=MB in COMFYUI_ARGS "
                "raises that.",
                FAILED,
            )
        if status != 200 or not isinstance(answer, dict):  # noqa: PLR2004 - HTTP's OK
            raise ComfyError(f"ComfyUI did not take {picture.name} (it answered {status}).", FAILED)
        folder, name = str(answer.get("subfolder") or ""), str(answer["name"])
        return f"{folder}/{name}" if folder else name

    async def run(self, nodes: dict[str, Any], limit: float | None = None) -> Outcome:
        """Queue a workflow and wait for its end. Whatever stops the waiting takes it out of the queue.

        Raises ComfyError when it is refused, fails, is interrupted, or takes more than `limit` seconds.
        """
        socket = await self._connect()  # before the prompt is queued, or its first events are missed
        prompt_id = str(uuid.uuid4())
        try:
            async with asyncio.timeout(limit):
                prompt_id = await self._queue(nodes, prompt_id)
                record = await self._wait(socket, prompt_id)
        except TimeoutError:
            await self._cancel(prompt_id)
            why = f"The prompt has not ended after {limit:.0f} s and was stopped."
            raise ComfyError(why, TIMED_OUT) from None
        except BaseException as stopped:
            if not isinstance(stopped, ComfyError):
                await self._cancel(prompt_id)
            raise
        return _outcome(prompt_id, record)

    async def save(self, output: Output, path: Path) -> int:
        """Fetch a file, aside first, then renamed; returns its size in bytes. Raises ComfyError."""
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            async with self._session.get(f"{self._server}/view", params=output.query) as answer:
                if answer.status != 200:  # noqa: PLR2004 - HTTP's OK
                    raise ComfyError(
                        f"ComfyUI does not give {output.filename} out ({answer.status}).", FAILED
                    )
                with aside.open("wb") as file:
                    async for chunk in answer.content.iter_chunked(1 << 20):
                        file.write(chunk)
                    size = file.tell()
            aside.replace(path)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._away(error) from None
        except OSError as error:
            raise ComfyError(f"{path} cannot be written: {error.strerror}.", CANNOT_SAVE) from None
        finally:
            with contextlib.suppress(OSError):
                aside.unlink()
        return size

    async def _queue(self, nodes: dict[str, Any], prompt_id: str) -> str:
        body = {"prompt": nodes, "client_id": self._id, "prompt_id": prompt_id}
        status, answer = await self._ask("POST", "/prompt", json=body)
        if status == 200 and isinstance(answer, dict) and answer.get("prompt_id"):  # noqa: PLR2004 - HTTP's OK
            return str(answer["prompt_id"])
        raise ComfyError(f"ComfyUI refused the workflow: {_refusal(answer, status)}", FAILED)

    async def _wait(self, socket: aiohttp.ClientWebSocketResponse, prompt_id: str) -> dict[str, Any]:
        """Follow the events until the prompt is in the history, which alone says that it has ended."""
        while True:
            connected = await self._follow(socket, prompt_id)
            if not connected:
                socket = await self._again()
            # In this order: a prompt that ends in between is in the history by then.
            waiting = await self._is_queued(prompt_id)
            if record := await self._history(prompt_id):
                return record
            if not waiting:
                raise ComfyError(
                    "ComfyUI has neither run nor kept the prompt: it was deleted from the queue, or ComfyUI "
                    "was restarted, and its log says why.",
                    FAILED,
                )

    async def _follow(self, socket: aiohttp.ClientWebSocketResponse, prompt_id: str) -> bool:
        """Pass events on until the prompt's end (True), a silence (True), or the connection's end (False)."""
        while True:
            try:
                message = await socket.receive(timeout=_ASK_AGAIN)
            except TimeoutError:
                return True
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                return False
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue  # previews
            event = message.json()
            kind, data = event.get("type"), event.get("data") or {}
            if data.get("prompt_id") != prompt_id:
                continue
            self._say(kind, data)
            # The last word comes after the history has been written (prompt_worker in main.py).
            if kind == "executing" and data.get("node") is None:
                return True

    async def _again(self) -> aiohttp.ClientWebSocketResponse:
        """Connect anew, as soon as ComfyUI is back."""
        end = time.monotonic() + _PATIENCE
        while True:
            await asyncio.sleep(_PAUSE)
            try:
                return await self._connect()
            except ComfyError:
                if time.monotonic() > end:
                    raise

    async def _is_queued(self, prompt_id: str) -> bool:
        _, queue = await self._ask("GET", "/queue")
        listed = [*queue.get("queue_running", ()), *queue.get("queue_pending", ())] if queue else []
        return any(item[1] == prompt_id for item in listed)

    async def _history(self, prompt_id: str) -> dict[str, Any] | None:
        with contextlib.suppress(ComfyError):
            _, answer = await self._ask("GET", f"/history/{prompt_id}")
            if isinstance(answer, dict) and prompt_id in answer:
                return dict(answer[prompt_id])
        return None

    async def _cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or interrupt it. What has ended by itself is left alone."""
        with contextlib.suppress(ComfyError):
            await self._ask("POST", "/queue", json={"delete": [prompt_id]})
            await self._ask("POST", "/interrupt", json={"prompt_id": prompt_id})

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        await self._disconnect()
        try:
            self._socket = await self._session.ws_connect(
                f"{self._server}/ws", params={"clientId": self._id}, heartbeat=_HEARTBEAT, max_msg_size=0
            )
        except (aiohttp.ClientError, OSError) as error:
            raise self._away(error) from None
        return self._socket

    async def _disconnect(self) -> None:
        if self._socket:
            await self._socket.close()

    async def _ask(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        """Send a request; returns status and JSON, None where it is none."""
        try:
            async with self._session.request(method, f"{self._server}{path}", **body) as answer:
                data = await answer.json(content_type=None) if answer.content_type.endswith("json") else None
                status = answer.status
        except ValueError:
            return 200, None
        except (aiohttp.ClientError, OSError) as error:
            raise self._away(error) from None
        if status in (401, 403):
            raise ComfyError(
                f"{self._server} wants a login: set WEB_USER and WEB_PASSWORD as the pod has them.",
                UNREACHABLE,
            )
        return status, data

    def _away(self, error: Exception) -> ComfyError:
        if isinstance(error, aiohttp.WSServerHandshakeError) and error.status in (401, 403):
            why = "it wants a login: set WEB_USER and WEB_PASSWORD as the pod has them"
        elif isinstance(error, aiohttp.WSServerHandshakeError):
            why = f"it answers {error.status} to a websocket"
        else:
            why = reason(error)
        return ComfyError(f"ComfyUI cannot be reached at {self._server}: {why}.", UNREACHABLE)


def _refusal(answer: Any, status: int) -> str:
    """Put ComfyUI's error and those of single nodes into words."""
    if not isinstance(answer, dict):
        return f"it answered {status}."
    error = answer.get("error") or {}
    said = [error.get("message", "")] if isinstance(error, dict) else [str(error)]
    for number, node in (answer.get("node_errors") or {}).items():
        for each in node.get("errors", ()):
            details = f" ({each['details']})" if each.get("details") else ""
            said.append(f"node {number} ({node.get('class_type')}): {each.get('message')}{details}")
    return "; ".join(filter(None, said)) + "."


def _outcome(prompt_id: str, record: dict[str, Any]) -> Outcome:
    """Read an entry of the history. Raises ComfyError when the prompt did not succeed."""
    status = record.get("status") or {}
    if status.get("status_str") != "success":
        raise ComfyError(_failure(status.get("messages") or ()), FAILED)
    found = Outcome(prompt_id)
    for node, shown in (record.get("outputs") or {}).items():
        for kind, items in shown.items():
            if kind == "text":
                found.texts[node] = [str(item) for item in items]
                continue
            files = [item for item in items if isinstance(item, dict) and item.get("filename")]
            found.outputs += [Output.of(node, item) for item in files]
    return found


def _failure(messages: Any) -> str:
    for kind, data in messages:
        if kind == "execution_error":
            node = f"node {data.get('node_id')} ({data.get('node_type')})"
            said = textwrap.shorten(
                str(data.get("exception_message", "")), _LONGEST_MESSAGE, placeholder=" …"
            )
            return f"The prompt failed in {node}: {data.get('exception_type')}: {said}"
        if kind == "execution_interrupted":
            return "The prompt was interrupted."
    return "The prompt failed; ComfyUI's log says why."
