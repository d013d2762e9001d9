"""Bodies of HTTP answers, decoded: a proxy may compress them unasked."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from comfy.failure import FAILED, UNREACHABLE, ComfyError
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import aiohttp

_PIECE: Final = 1 << 20  # bytes, at most: a small body may decode to any size
_ZLIB: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def pieces(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """Give out the body of an answer without its Content-Encoding, in pieces of 1 MiB at most.

    Raises ComfyError for an encoding that is not known, and for a body that breaks off or is damaged.
    """
    coding = answer.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("", "identity"):
        async for chunk in answer.content.iter_chunked(_PIECE):
            yield chunk
        return
    if coding not in _ZLIB:
        raise ComfyError(f"An answer came as {shown(coding, 40)}, which was not requested.", FAILED)
    decoder = zlib.decompressobj(_ZLIB[coding])
    try:
        async for chunk in answer.content.iter_chunked(_PIECE):
            rest = chunk
            while rest and not decoder.eof:
                yield decoder.decompress(rest, _PIECE)
                rest = decoder.unconsumed_tail
    except zlib.error:
        raise ComfyError(f"An answer came as damaged {coding}.", UNREACHABLE) from None
    if not decoder.eof:
        raise ComfyError(f"An answer came as {coding} that breaks off.", UNREACHABLE)
