"""Files that are to be uploaded: from this machine, or from an address on the web."""

from __future__ import annotations

import os
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import aiohttp

from comfy.failure import IMAGE_UNREADABLE, ComfyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LARGEST: Final = 4 << 30  # bytes: what ComfyUI's own limit of 100 MB would stop is said by ComfyUI
_LONGEST_NAME: Final = 200
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)


@dataclass(frozen=True)
class Picture:
    """An open file, and the name that it is uploaded by."""

    name: str
    file: IO[bytes]


@asynccontextmanager
async def opened(source: str, session: aiohttp.ClientSession) -> AsyncIterator[Picture]:
    """Open a file or an http(s) address, which is fetched first, whole. Raises ComfyError."""
    if source.startswith(("http://", "https://")):
        with TemporaryFile() as file:
            yield Picture(await _fetch(source, session, file), file)
        return
    path = Path(source)
    try:
        with path.open("rb") as file:  # noqa: ASYNC230 - nothing else waits here
            yield Picture(path.name, file)
    except OSError as error:
        raise ComfyError(f"{source} cannot be read: {error.strerror}.", IMAGE_UNREADABLE) from None


def shown(url: str) -> str:
    """Return an address as it may be printed: signed addresses carry their key in the query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def reason(error: Exception) -> str:
    """Say why a transfer failed, without the address: that may be signed."""
    if isinstance(error, aiohttp.InvalidURL):
        return "that is no address"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()


def name_of(url: str, kind: str) -> str:
    """Return a file name for an address; `kind` is its media type, for addresses without an extension."""
    last = PurePosixPath(unquote(urlsplit(url).path)).name
    name = re.sub(r"[^\w.() -]+", "_", last).strip(". ")[-_LONGEST_NAME:] or "image"
    if PurePosixPath(name).suffix:
        return name
    media, _, subtype = kind.partition("/")
    known = {"jpeg": "jpg", "svg+xml": "svg"}.get(subtype, subtype)
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
