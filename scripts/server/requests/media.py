"""Pictures, films and sound that a request brings: uploaded, a data: URI, base64, or an address on the web.

What they are is told by their content, and how large they would be by their headers, before anything decodes
them. Paths are nothing that a request can name. Addresses are fetched under the rule of worker/web.py.
"""

from __future__ import annotations

import asyncio
import base64
import os
import string
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

import aiohttp

from pod.util.printable import shown
from server.requests.errors import FieldError
from server.requests.image_size import dimensions
from worker.media import AUDIO, IMAGE, VIDEO, ending_of
from worker.web import PublicWeb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MOST: Final = 16
"""Files of one request."""
MOST_PIXELS: Final = 50_000_000
"""Of one picture: 150 MB when it is decoded."""
_KINDS: Final = {
    **dict.fromkeys(("png", "jpg", "webp"), IMAGE),
    **dict.fromkeys(("mp4", "webm", "avi"), VIDEO),
    **dict.fromkeys(("wav", "mp3", "flac", "ogg", "m4a"), AUDIO),
}
_TAKEN: Final = {
    IMAGE: "a picture as PNG, JPEG or WebP",
    VIDEO: "a video as MP4, WebM or AVI",
    AUDIO: "sound as WAV, MP3, FLAC, Ogg or M4A",
}
_WAYS: Final = "a file of a form, an http(s) address, a data: URI or base64"
_MOST_ESCAPED: Final = 200_000
"""Characters of a data: URI without base64: to read them takes up to two hundred times their memory."""
_LONGEST_ADDRESS: Final = 8_000  # characters; names of hosts take the square of their length to be encoded
_TIMEOUT: Final = aiohttp.ClientTimeout(total=120, sock_connect=10, sock_read=30)
_OK: Final = 200


def kind_of(content: bytes) -> str:
    """Return IMAGE, VIDEO or AUDIO, by content; "" for what is not taken."""
    return _KINDS.get(ending_of(content[:32]), "")


def kind_named(parameter: str) -> str:
    """Return what a parameter takes, by its name: all but videos and sound are pictures."""
    words = {*parameter.split("_")}
    if words & {"video", "videos", "frames"}:
        return VIDEO
    return AUDIO if words & {"audio", "waveform", "waveforms"} else IMAGE


def check(name: str, content: bytes, kinds: Sequence[str]) -> None:
    """Check what a file is, and how large a picture. Raises FieldError."""
    if kind_of(content) not in kinds:
        raise FieldError(f"{name} is not {' or '.join(_TAKEN[kind] for kind in kinds)}.", name)
    if kind_of(content) != IMAGE:
        return
    size = dimensions(content, ending_of(content[:32]))
    if size is None:
        raise FieldError(f"{name} is a picture without a header that can be read.", name)
    if size[0] * size[1] > MOST_PIXELS:
        raise FieldError(
            f"{name} has {size[0]} x {size[1]} pixels, and {MOST_PIXELS // 1_000_000} megapixels are the "
            "most that are decoded here: send a smaller one.",
            name,
        )


class Reader:
    """Reads the files of one request.

    Args:
        most: Bytes of all that are fetched.
        take: Called with the size of each part that is fetched: raises where there is no memory for it.
        private: Whether addresses may be of hosts that are not public.
    """

    def __init__(self, most: int, take: Callable[[int], None] = lambda _: None, *, private: bool) -> None:
        self._most = most
        self._left = most
        self._take = take
        self._private = private

    async def read(self, given: Mapping[str, Sequence[Any]]) -> dict[str, list[bytes]]:
        """Return the contents of files by field: each is one already, or a text. Raises FieldError."""
        if sum(map(len, given.values())) > MOST:
            raise FieldError(f"A request brings {MOST} files at most.", next(iter(given)))
        return {name: [await self._one(name, each) for each in files] for name, files in given.items()}

    async def _one(self, name: str, given: Any) -> bytes:
        if isinstance(given, bytes):
            return given
        text = given.strip() if isinstance(given, str) else ""
        if not text:
            raise FieldError(f"{name} is empty: give {_WAYS}.", name)
        if text[:8].lower().startswith(("http://", "https://")):
            if len(text) > _LONGEST_ADDRESS:
                raise FieldError(f"{name} is an address of more than {_LONGEST_ADDRESS} characters.", name)
            return await self._fetched(name, text)
        return await asyncio.to_thread(_decoded, name, text)

    async def _fetched(self, name: str, url: str) -> bytes:
        async with PublicWeb(private=self._private) as web:
            try:
                return await self._got(name, url, web.session)
            except (aiohttp.ClientError, OSError, ValueError) as error:  # a timeout is an OSError
                why = "its address is not one of the public internet" if web.refused else _reason(error)
                raise FieldError(f"{name} cannot be fetched: {why}.", name) from None

    async def _got(self, name: str, url: str, session: aiohttp.ClientSession) -> bytes:
        content = bytearray()
        async with session.get(url, timeout=_TIMEOUT) as answer:
            if answer.status != _OK:
                raise FieldError(f"{name} cannot be fetched: its host answers {answer.status}.", name)
            async for chunk in answer.content.iter_chunked(1 << 16):
                self._left -= len(chunk)
                if self._left < 0:
                    most = f"{self._most / 1e6:g} MB"
                    raise FieldError(
                        f"{name} is larger than the {most} that are fetched for one request.", name
                    )
                self._take(len(chunk))
                content += chunk
        return bytes(content)


def _decoded(name: str, text: str) -> bytes:
    """Return what base64 or a data: URI (RFC 2397) holds. Raises FieldError."""
    head, _, content = text.partition(",") if text[:5].lower() == "data:" else (";base64", "", text)
    try:
        if head.lower().endswith(";base64"):
            # No list of words: of text that is half blanks it would take twenty times the memory.
            packed = content.encode("ascii").translate(None, string.whitespace.encode())
            data = base64.b64decode(packed, validate=True)
        elif len(content) > _MOST_ESCAPED:
            raise FieldError(
                f"{name} is a data: URI of more than {_MOST_ESCAPED} characters without base64: use that.",
                name,
            )
        else:
            data = unquote_to_bytes(content)
    except ValueError:
        data = b""
    if not data:
        raise FieldError(f"{name} is {shown(text, 40)}, which cannot be read: give {_WAYS}.", name)
    return data


def _reason(error: Exception) -> str:
    """Say why a transfer failed, without the address: that may be signed."""
    if isinstance(error, aiohttp.InvalidURL):
        return "that is not an address"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return "its host does not answer as it should"
