"""The body of a request, read within limits: of bytes as they come, of time, of memory for all together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ClientPayloadError, HttpVersion11

from comfy.answers import MOST_VALUES
from pod.util import bounded_json
from worker.http_errors import HttpError

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

_SILENT_SECONDS: Final = 15.0  # without a byte
_FIRST_SECONDS: Final = 30.0  # for a start ...
_SLOWEST: Final = 16_384  # ... and bytes a second beyond that
_PAUSE: Final = "5"  # seconds until there may be memory again
_NOT_JSON: Final = 'The body is not JSON: send {"input": {"workflow": ...}}.'


class Memory:
    """How many bytes of requests there may be at once: of those that come in, wait and run."""

    def __init__(self, most: int) -> None:
        self._left = most
        self.turn = asyncio.Lock()
        """Held while a body is parsed: several threads at it would let nobody else work."""

    def take(self, size: int) -> None:
        """Take memory. Raises HttpError where there is none left."""
        if size > self._left:
            raise HttpError(
                429, "Too much is being sent at once: try again later.", headers={"Retry-After": _PAUSE}
            )
        self._left -= size

    def give(self, size: int) -> None:
        """Give memory back."""
        self._left += size


async def read(request: BaseRequest, most: int, memory: Memory) -> bytearray:
    """Read a body, whose memory the caller has to give back. Raises HttpError."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise HttpError(415, "The body is compressed: send it as it is.")
    _check_size(request.content_length or 0, most)
    await _go_on(request)
    body, latest = bytearray(), asyncio.get_running_loop().time() + _FIRST_SECONDS
    try:
        while chunk := await _chunk(request, latest + len(body) / _SLOWEST):
            _check_size(len(body) + len(chunk), most)
            memory.take(len(chunk))
            body += chunk
    except BaseException:
        memory.give(len(body))
        raise
    return body


async def read_json(request: BaseRequest, most: int, memory: Memory) -> tuple[dict[str, Any], int]:
    """Read an object; returns it and its size, the memory of which the caller has to give back."""
    body = await read(request, most, memory)
    try:
        async with memory.turn:
            # Beside the event loop: thirty megabytes take a quarter of a second.
            return await asyncio.to_thread(_parsed, bytes(body)), len(body)
    except BaseException:
        memory.give(len(body))
        raise


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        found = bounded_json.parse(body, MOST_VALUES)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise HttpError(400, _NOT_JSON)
    return found


async def _go_on(request: BaseRequest) -> None:
    """Answer `Expect: 100-continue` (RFC 9110, 10.1.1): curl sends it with what is large.

    As aiohttp's own handler does, which serves applications alone (web_urldispatcher.py of 3.14.5).
    """
    expect = request.headers.get("Expect", "").lower()
    if expect and request.version == HttpVersion11:
        if expect != "100-continue":
            raise HttpError(417, "What the request expects is not known here.")
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


async def _chunk(request: BaseRequest, latest: float) -> bytes:
    """Return the next part of a body, b"" at its end. Raises HttpError where it is slow, or broken."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(min(latest, loop.time() + _SILENT_SECONDS)):
            return await request.content.readany()
    except TimeoutError:
        raise HttpError(408, "The body comes too slowly: send the request again.") from None
    except ClientPayloadError:
        raise HttpError(400, "The body is not what its headers say.") from None


def _check_size(size: int, most: int) -> None:
    if size > most:
        limit = f"{most / 1e6:g} MB"
        raise HttpError(413, f"The body is larger than {limit}: send files by their addresses.")
