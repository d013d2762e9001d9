"""Files that are to be uploaded: from this machine, or from an address on the web."""

from __future__ import annotations

import base64
import os
import re
import string
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import aiohttp

from comfy.failure import IMAGE_UNREADABLE, ComfyError
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LARGEST: Final = 4 << 30  # bytes: what ComfyUI's own limit of 100 MB would stop is said by ComfyUI
MAX_NAME: Final = 200
_MOST_ESCAPES: Final = 100_000  # in a data: URI: each takes hundreds of bytes while it is read
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)


@dataclass(frozen=True)
class Picture:
    """An open file, and the name that it is uploaded by."""

    name: str
    file: IO[bytes]


@asynccontextmanager
async def opened(source: str, session: aiohttp.ClientSession) -> AsyncIterator[Picture]:
    """Open a file, a data: URI or an http(s) address, which is fetched first, whole. Raises ComfyError."""
    scheme = source[:8].lower()
    if scheme.startswith(("http://", "https://")):
        with TemporaryFile() as file:
            yield Picture(await _fetch(source, session, file), file)
        return
    if scheme.startswith("data:"):
        yield _decoded(source)
        return
    path = Path(source)
    try:
        opened_file = path.open("rb")  # noqa: ASYNC230 - nothing else waits here; closed below
    except OSError as error:
        raise ComfyError(f"{shown(source)} cannot be read: {error.strerror}.", IMAGE_UNREADABLE) from None
    except ValueError:  # a NUL byte
        raise ComfyError(f"{shown(source)} is not the name of a file.", IMAGE_UNREADABLE) from None
    with opened_file:
        yield Picture(path.name, opened_file)


def _decoded(uri: str) -> Picture:
    """Read a data: URI (RFC 2397). Raises ComfyError."""
    head, comma, content = uri[len("data:") :].partition(",")
    kind, *parameters = head.lower().split(";")
    if not comma:
        raise ComfyError("data:… is not a data URI: it holds no comma.", IMAGE_UNREADABLE)
    if content.count("%") > _MOST_ESCAPES:
        raise ComfyError(
            f"data:{shown(head, 40)},… has more than {_MOST_ESCAPES} escaped characters: use base64.",
            IMAGE_UNREADABLE,
        )
    try:
        data = unquote_to_bytes(content)
        if parameters[-1:] == ["base64"]:
            # No list of words: of text that is half blanks it would take twenty times the memory.
            data = base64.b64decode(data.translate(None, string.whitespace.encode()), validate=True)
    except ValueError as error:
        raise ComfyError(f"data:{shown(head, 40)},… is not a data URI: {error}.", IMAGE_UNREADABLE) from None
    if not data:
        raise ComfyError(f"data:{shown(head, 40)},… is an empty picture.", IMAGE_UNREADABLE)
    return Picture(name_of("", kind or "image/png"), BytesIO(data))


def reason(error: Exception) -> str:
    """Say why a transfer failed, without the address: that may be signed."""
    if isinstance(error, aiohttp.InvalidURL):
        return "that is not an address"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()


def name_of(url: str, kind: str) -> str:
    """Return a file name for an address; `kind` is its media type, for addresses without an extension."""
    last = PurePosixPath(unquote(urlsplit(url).path)).name
    name = re.sub(r"[^\w.() -]+", "_", last).strip(". ")[-MAX_NAME:] or "image"
    if PurePosixPath(name).suffix:
        return name
    media, _, subtype = kind.partition("/")
    known = {"jpeg": "jpg", "svg+xml": "svg"}.get(subtype, re.sub(r"\W", "", subtype)[:10] or "png")
    return f"{name}.{known if media in ('image', 'video', 'audio') else 'png'}"


async def _fetch(url: str, session: aiohttp.ClientSession, file: IO[bytes]) -> str:
    try:
        async with session.get(url, timeout=_TIMEOUT) as answer:
            if answer.status != 200:  # noqa: PLR2004 - HTTP's OK
                raise ComfyError(f"{shown(url)} answers {answer.status}.", IMAGE_UNREADABLE)
            if answer.content_type in ("text/html", "application/json"):
                raise ComfyError(
                    f"{shown(url)} is a page ({answer.content_type}), not a picture: give the address of the "
                    "file itself.",
                    IMAGE_UNREADABLE,
                )
            async for chunk in answer.content.iter_chunked(1 << 20):
                file.write(chunk)
                if file.tell() > _LARGEST:
                    raise ComfyError(f"{shown(url)} is larger than 4 GiB.", IMAGE_UNREADABLE)
            name = name_of(str(answer.url), answer.content_type)
    except (aiohttp.ClientError, OSError, ValueError) as error:  # a timeout is an OSError
        raise ComfyError(f"{shown(url)} cannot be fetched: {reason(error)}.", IMAGE_UNREADABLE) from None
    file.seek(0)
    return name
