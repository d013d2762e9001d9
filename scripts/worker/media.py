"""Pictures, films and sound that a request brings: an address, a data: URI, base64, or a path on the volume.

A path is looked for below the input folders alone, with all links followed: a request comes from whoever has
the endpoint's key, and what else lies on the volume is not theirs. Addresses are fetched later, under the
rule of worker/web.py.
"""

from __future__ import annotations

import base64
import hashlib
import re
import string
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from comfy.workflow import Named
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE, VIDEO, AUDIO = "image", "video", "audio"
_ENDINGS: Final = {
    IMAGE: ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif"),
    VIDEO: ("mp4", "webm", "mkv", "mov", "avi", "m4v", "gif"),
    AUDIO: ("wav", "mp3", "flac", "ogg", "opus", "m4a", "aac"),
}
"""By kind, the usual one first: a file without an ending gets that one. Readers look at the content."""
_BEGINNINGS: Final = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpg",
    b"GIF8": "gif",
    b"\x1a\x45\xdf\xa3": "webm",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"ID3": "mp3",
}
"""How files begin (https://www.iana.org/assignments/media-types/)."""
_UNSAID: Final = ("", "application/octet-stream", "binary/octet-stream")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,20}:")
_LONGEST_PATH: Final = 1000  # characters
WAYS: Final = "an http(s) address, a data: URI, base64, or the path of a file in the volume's input folder"


class UnusableError(ValueError):
    """What a request says of an input cannot be used: a phrase without a full stop at its end."""


def named(field: str, kind: str, given: str, folders: Sequence[Path]) -> Named:
    """Return a file and the name that it is uploaded by: one content, one name. Raises UnusableError.

    Args:
        field: What the request calls it.
        kind: `image`, `video` or `audio`.
        given: What the request says.
        folders: Where a path may lead.
    """
    text = given.strip()
    if text.lower().startswith(("http://", "https://")):
        return _of(field, kind, text, PurePosixPath(urlsplit(text).path).suffix[1:])
    if text[:5].lower() == "data:":
        return _of(field, kind, text, _checked_uri(kind, text))
    if scheme := _SCHEME.match(text):
        raise UnusableError(f"{shown(scheme[0][:-1], 20)} is no kind of address that is fetched: give {WAYS}")
    if _is_path(text, folders):
        path = _found(text, folders)
        return _of(field, kind, str(path), path.suffix[1:])
    return _of(field, kind, f"data:;base64,{text}", ending_of(_decoded(text)))


def _of(field: str, kind: str, source: str, ending: str) -> Named:
    known = _ENDINGS[kind]
    number = hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()[:16]
    return Named(f"{field}-{number}.{ending.lower() if ending.lower() in known else known[0]}", source)


def _checked_uri(kind: str, uri: str) -> str:
    """Return the ending for a data: URI (RFC 2397)."""
    head, comma, content = uri[len("data:") :].partition(",")
    media, *parameters = head.lower().split(";")
    if not comma or not content:
        raise UnusableError("its data: URI is empty, or lacks the comma")
    if media not in _UNSAID and media.partition("/")[0] != kind and media != "image/gif":
        raise UnusableError(f"its data: URI is of {shown(media, 60)}, and {_article(kind)} is wanted")
    if parameters[-1:] == ["base64"]:
        return ending_of(_decoded(content)) or media.partition("/")[2]
    return media.partition("/")[2]


def _decoded(text: str) -> bytes:
    """Return the beginning of what base64 holds."""
    try:
        # No list of words: of text that is half blanks it would take twenty times the memory.
        packed = text.encode("ascii").translate(None, string.whitespace.encode())
        data = base64.b64decode(packed, validate=True)
    except ValueError:
        data = b""
    if not data:
        raise UnusableError(f"{shown(text, 40)} is neither base64 nor what else it can be: give {WAYS}")
    return data[:32]


def ending_of(data: bytes) -> str:
    """Return the ending for a file by its first bytes; an empty one where they say nothing."""
    if data[4:8] == b"ftyp":
        return "m4a" if data[8:11] == b"M4A" else "mp4"
    if data[:4] == b"RIFF":
        return {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}.get(data[8:12], "")
    return next((ending for first, ending in _BEGINNINGS.items() if data.startswith(first)), "")


def _is_path(text: str, folders: Sequence[Path]) -> bool:
    """Tell a path from base64, which has no dot, and begins with a `/` where it is a JPEG's."""
    if len(text) > _LONGEST_PATH:
        return False
    return "." in text or any(text.startswith(f"{folder.parent}/") for folder in folders)


def _found(text: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        try:
            home, path = folder.resolve(), (folder / text).resolve()
            if path.is_relative_to(home) and path.is_file():
                return path
        except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, links in a circle
            continue
    places = " and ".join(map(str, folders)) or "an input folder, which this worker has none of"
    raise UnusableError(f"there is no file {shown(text, 80)} below {places}")


def _article(kind: str) -> str:
    return {IMAGE: "a picture", VIDEO: "a video", AUDIO: "sound"}[kind]
