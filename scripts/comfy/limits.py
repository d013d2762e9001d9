"""What is taken from a server: no redirect, no endless answer, no file that hardly comes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from comfy.encoding import pieces
from comfy.failure import FAILED, UNREACHABLE, ComfyError
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

_LARGEST_ANSWER: Final = 32 << 20  # bytes of JSON: the history holds the workflow, pictures and all
_SLOW_SECONDS, _SLOW_BYTES = 60.0, 64 << 10  # a file that comes more slowly than this is given up


def without_redirects() -> aiohttp.TraceConfig:
    """Return what stops every redirect: aiohttp follows those of a websocket, to wherever a server says."""

    async def refuse(_session: Any, _context: Any, redirected: aiohttp.TraceRequestRedirectParams) -> None:
        to = shown(redirected.response.headers.get("Location", "nowhere"))
        raise ComfyError(
            f"ComfyUI cannot be reached at {shown(redirected.url.origin())}: it redirects to {to}; "
            "give that as --server.",
            UNREACHABLE,
        )

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace


async def not_too_slow(chunks: AsyncIterator[bytes], name: str) -> AsyncGenerator[bytes, None]:
    """Pass a file's pieces on. Raises ComfyError where they come more slowly than anybody waits for."""
    since, came = time.monotonic(), 0
    async for chunk in chunks:
        yield chunk
        came += len(chunk)
        if time.monotonic() - since > _SLOW_SECONDS:
            if came < _SLOW_BYTES:
                raise ComfyError(
                    f"ComfyUI sends {name} too slowly: {came} bytes in {_SLOW_SECONDS:.0f} s.", FAILED
                )
            since, came = time.monotonic(), 0


async def read_body(answer: aiohttp.ClientResponse, path: str) -> bytes:
    """Return a small answer's body, decoded. Raises ComfyError where it is too large or damaged."""
    data = bytearray()
    async for chunk in pieces(answer):
        data += chunk
        if len(data) > _LARGEST_ANSWER:
            raise ComfyError(
                f"ComfyUI answers {path.split('/')[1]} with more than {_LARGEST_ANSWER >> 20} MiB.", FAILED
            )
    return bytes(data)
