"""What podkiln-comfy asks of a ComfyUI: upload a file, run a workflow, fetch what came out.

Source: server.py of ComfyUI 0.33.0. comfy/connection.py sends the requests, comfy/prompt_run.py runs prompts.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

from comfy.connection import OK, Connection
from comfy.encoding import pieces
from comfy.failure import FAILED, ComfyError, GoneError
from comfy.limits import not_too_slow
from comfy.prompt_run import PromptRun, drop
from comfy.retry import TRIES, pause
from pod.net.retry import PASSING
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from types import TracebackType

    from comfy.answers import Event, Frame, Outcome, Output
    from comfy.pictures import Picture

_TOO_LARGE: Final = 413
_NOT_FOUND: Final = 404


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
        self._connection = Connection(server, login, trusted=trusted)
        self._say = say
        self._take = take

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def serves(self) -> bool:
        """Ask once whether ComfyUI answers."""
        try:
            status, answer = await self._connection.ask("GET", "/prompt")
        except ComfyError:
            return False
        return status == OK and isinstance(answer, dict)

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
        status, answer = await self._connection.ask("POST", "/upload/image", data=form)
        if status == _TOO_LARGE:
            raise ComfyError(
                f"{shown(picture.name)} is larger than this ComfyUI takes: --max-upload-size=MB in "
                "COMFYUI_ARGS raises that.",
                FAILED,
            )
        name = answer.get("name") if isinstance(answer, dict) else None
        if status != OK or not isinstance(name, str) or not name:
            raise ComfyError(f"ComfyUI did not take {shown(picture.name)} (it answered {status}).", FAILED)
        folder = answer.get("subfolder")
        return f"{folder}/{name}" if isinstance(folder, str) and folder else name

    async def run(
        self,
        nodes: dict[str, Any],
        limit: float | None = None,
        pictured: frozenset[str] = frozenset(),
        extra: Mapping[str, Any] | None = None,
        prompt_id: str | None = None,
    ) -> Outcome:
        """Queue a workflow and wait for its end. Whatever stops the waiting takes it out of the queue.

        Args:
            nodes: The workflow.
            limit: Seconds that it may take.
            pictured: The nodes whose pictures come by the websocket alone.
            extra: Sent beside it as `extra_data`: keys for nodes that ask paid services.
            prompt_id: The UUID to queue it under; a new one without.

        Raises RefusedError when it is refused as a whole, ComfyError when it takes too long or ComfyUI was
        restarted. What is refused or fails in part is among the outcome's problems, and so is what came by
        the websocket and was lost.
        """
        prompt = PromptRun(self._connection, pictured, self._say, self._take, prompt_id)
        return await prompt.run(nodes, limit, extra)

    async def drop(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or interrupt it, where ComfyUI can be reached."""
        await drop(self._connection, prompt_id)

    async def free(self) -> None:
        """Ask ComfyUI to unload its models and give memory back when it runs nothing. Raises ComfyError."""
        await self._connection.ask("POST", "/free", json={"unload_models": True, "free_memory": True})

    async def content(self, output: Output) -> AsyncGenerator[bytes, None]:
        """Fetch a file in pieces. Raises GoneError where it was deleted, else ComfyError."""
        for number in range(TRIES):
            try:
                async with self._connection.request("GET", "/view", params=output.query) as answer:
                    if answer.status == OK:
                        async for chunk in not_too_slow(pieces(answer), shown(output.filename)):
                            yield chunk
                        return
                    if answer.status == _NOT_FOUND:
                        raise GoneError(f"ComfyUI does not serve {shown(output.filename)} (404).", FAILED)
                    if answer.status not in PASSING or number == TRIES - 1:
                        raise ComfyError(
                            f"ComfyUI does not serve {shown(output.filename)} ({answer.status}).", FAILED
                        )
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise self._connection.away(error) from None
            await asyncio.sleep(pause(number))
