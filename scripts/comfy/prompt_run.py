"""A prompt on its way through ComfyUI: queued, followed to its end, and taken out where the waiting stops.

Source: server.py, execution.py and main.py of ComfyUI 0.33.0. comfy/answers.py reads what the answers hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp

from comfy import answers
from comfy.connection import OK, check_size
from comfy.failure import FAILED, TIMED_OUT, ComfyError, RefusedError
from comfy.progress import PromptProgress
from comfy.retry import TRIES, PassingError, patiently, pause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from comfy.answers import Event, Frame, Outcome, Problem
    from comfy.connection import Connection, Socket

_ASK_AGAIN: Final = 5.0  # seconds without a word after which the history is asked
_DRAIN: Final = 30.0  # seconds without a word after which pictures of a prompt that has ended come no more
_LARGEST_TEXT: Final = 8 << 20  # bytes of a text message: what a node shows
_PROMPT_ID: Final = re.compile(r"[ -~]{1,100}")  # it is a UUID
_CANCEL_SECONDS: Final = 10.0
_NOT_TAKEN: Final = (429, 503)  # of a proxy that has not passed the request on


class PromptRun:
    """One workflow's run.

    Args:
        connection: To the ComfyUI.
        pictured: The nodes whose pictures come by the websocket alone.
        say: Told of the events of the prompt.
        take: Given those pictures.
        prompt_id: The UUID to queue it under; a new one without.
    """

    def __init__(
        self,
        connection: Connection,
        pictured: frozenset[str],
        say: Callable[[Event], None],
        take: Callable[[str, Frame], Any] | None,
        prompt_id: str | None = None,
    ) -> None:
        self._connection = connection
        self._progress = PromptProgress(prompt_id or str(uuid.uuid4()), pictured)
        self._say = say
        self._take = take

    async def run(
        self, nodes: dict[str, Any], limit: float | None, extra: Mapping[str, Any] | None = None
    ) -> Outcome:
        """Queue a workflow and wait for its end, at most `limit` seconds. Raises ComfyError."""
        # Before the prompt is queued, or its first events are missed.
        socket = await patiently(self._connection.websocket)
        try:
            async with asyncio.timeout(limit):
                refused = await self._queue(nodes, extra)
                record = await self._wait(socket)
        except TimeoutError:
            await drop(self._connection, self._progress.prompt_id)
            why = f"The prompt has not ended after {limit:.0f} s and was stopped."
            raise ComfyError(why, TIMED_OUT) from None
        except BaseException as stopped:
            if not isinstance(stopped, ComfyError):
                await drop(self._connection, self._progress.prompt_id)
            raise
        found = answers.outcome(self._progress.prompt_id, record)
        succeeded = not found.problems
        found.problems[:0] = refused
        if succeeded:
            found.problems += self._progress.lost(
                {node for problem in refused for node in (problem.node, *problem.stops)}
            )
        return found

    async def _queue(self, nodes: dict[str, Any], extra: Mapping[str, Any] | None) -> list[Problem]:
        """Queue a workflow; returns which of its nodes are refused. Raises ComfyError where none is taken."""
        body = {
            "prompt": nodes,
            "client_id": self._connection.client_id,
            "prompt_id": self._progress.prompt_id,
            **({"extra_data": extra} if extra else {}),
        }
        status, answer = await self._submit(body)
        given = answer.get("prompt_id") if isinstance(answer, dict) else None
        if status != OK or not isinstance(given, str) or not _PROMPT_ID.fullmatch(given):
            said = answers.refusal(answer, status)
            raise RefusedError(f"ComfyUI refused the workflow: {said}.", status, answer)
        self._progress.prompt_id = given
        return answers.refused(answer)

    async def _submit(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Send a prompt, again only where a proxy has refused it and ComfyUI does not know it."""
        for number in range(TRIES):
            try:
                return await self._connection.ask("POST", "/prompt", json=body)
            except PassingError as refused:
                if refused.status not in _NOT_TAKEN or number == TRIES - 1:
                    raise
            await asyncio.sleep(pause(number))
            if await self._is_queued() or await self._history():
                lost = {"errors": ["a proxy lost ComfyUI's answer, which says what of it is refused"]}
                return OK, {"prompt_id": self._progress.prompt_id, "node_errors": {"?": lost}}
        raise AssertionError

    async def _wait(self, socket: Socket) -> Any:
        """Follow the events until the prompt is in the history, which alone says that it has ended."""
        missed = 0
        while True:
            connected = await self._follow(socket, _ASK_AGAIN)
            if not connected:
                socket = await self._connection.reconnected()
            # In this order: a prompt that ends in between is in the history by then.
            waiting = await self._is_queued()
            if record := await self._history():
                if connected and self._progress.pictured and not self._progress.over:
                    await self._follow(socket, _DRAIN)
                return record
            missed = 0 if waiting else missed + 1
            if missed > 1:  # one answer may be that of another worker behind a proxy, or come from a cache
                raise ComfyError(
                    "ComfyUI has neither run nor kept the prompt: it was deleted from the queue, or ComfyUI "
                    "was restarted, and its log says why.",
                    FAILED,
                )

    async def _follow(self, socket: Socket, patience: float) -> bool:
        """Pass events on until the prompt's end (True), a silence (True), or the connection's end (False)."""
        while True:
            try:
                message = await socket.receive(timeout=patience)
            except TimeoutError:
                return True
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                check_size(message.data)
                return False
            if message.type is aiohttp.WSMsgType.BINARY:
                await self._picture(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                if len(message.data) > _LARGEST_TEXT:
                    raise ComfyError(f"ComfyUI sent a text of more than {_LARGEST_TEXT >> 20} MiB.", FAILED)
                if not (event := answers.event(message.data)):
                    continue
                if event.data.get("prompt_id") != self._progress.prompt_id:
                    continue
                self._say(event)
                self._progress.note(event)
                if self._progress.over:
                    return True

    async def _picture(self, message: bytes) -> None:
        if (frame := answers.frame(message)) and (node := self._progress.of(frame)) and self._take:
            await self._take(node, frame)

    async def _is_queued(self) -> bool:
        try:
            queue = await self._connection.insist("/queue")
        except ComfyError as error:
            if error.exit_code != FAILED:
                raise
            return True  # the workflows of others may make it too long to be read
        return answers.is_queued(queue, self._progress.prompt_id)

    async def _history(self) -> Any:
        number = self._progress.prompt_id
        return (await self._connection.insist(f"/history/{quote(number, safe='')}")).get(number)


async def drop(connection: Connection, prompt_id: str) -> None:
    """Take a prompt out of the queue, or interrupt it. What has ended by itself is left alone."""
    with contextlib.suppress(ComfyError, TimeoutError):
        async with asyncio.timeout(_CANCEL_SECONDS):
            await connection.ask("POST", "/queue", json={"delete": [prompt_id]})
            await connection.ask("POST", "/interrupt", json={"prompt_id": prompt_id})
