"""What ComfyUI's history says came out of a workflow, sorted by what it is for a client. Pure.

Source of the formats: comfy_execution/jobs.py, nodes.py and comfy_api/latest/_ui.py of ComfyUI 0.33.0. A
node shows lists by a word of its own choice: core's SaveVideo lists an mp4 under `images`, VideoHelperSuite
under `gifs`. So a file is sorted by what it is, and the word is kept only to know what worker-comfyui would
have made of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from comfy.answers import Output
from pod.util.printable import shown
from worker import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_MESSAGE: Final = 2000  # characters of what a node says: torch lists each tensor that does not fit
_OTHER: Final = "application/octet-stream"
# IANA's media types, by ending; not Python's table, which takes in what the system at hand says.
_MIME: Final = {
    **dict.fromkeys(("jpg", "jpeg"), "image/jpeg"),
    **dict.fromkeys(("tif", "tiff"), "image/tiff"),
    **dict.fromkeys(("mp4", "m4v"), "video/mp4"),
    **dict.fromkeys(("ogg", "opus"), "audio/ogg"),
    **{kind: f"image/{kind}" for kind in ("png", "webp", "gif", "avif", "bmp", "apng")},
    "svg": "image/svg+xml",
    "exr": "image/x-exr",
    "webm": "video/webm",
    "mkv": "video/matroska",
    "mov": "video/quicktime",
    "avi": "video/x-msvideo",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "obj": "model/obj",
    "stl": "model/stl",
    "usdz": "model/vnd.usdz+zip",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "json": "application/json",
    "zip": "application/zip",
}
_3D: Final = (".obj", ".fbx", ".gltf", ".glb", ".usdz")  # of THREE_D_EXTENSIONS: named by a plain text
_MIME_TYPE: Final = re.compile(r"[a-z]{1,20}/[A-Za-z0-9.+-]{1,60}")
_GROUPS: Final = {"image": "images", "video": "videos", "audio": "audio"}
GROUPS: Final = ("images", "videos", "audio", "files")
"""Where files stand in an answer."""


@dataclass(frozen=True)
class OutputFile:
    """A file that came out. `group`: where it stands in the answer; `word`: where the node lists it."""

    output: Output
    mime: str
    group: str
    word: str

    def groups(self, *, legacy: bool) -> tuple[str, ...]:
        """Return where it stands; with `legacy` a video also where worker-comfyui has it."""
        also = ("images",) if legacy and self.word == "images" and self.group != "images" else ()
        return (self.group, *also)


@dataclass
class Outputs:
    """What came out: files, and what nodes showed as text."""

    files: list[OutputFile] = field(default_factory=list)
    texts: list[dict[str, str]] = field(default_factory=list)


def read(record: Any) -> Outputs:
    """Read an entry of the history: each file once, no previews. What cannot be understood is passed over."""
    found, known = Outputs(), set()
    for node, word, item in _items(record.get("outputs") if isinstance(record, dict) else None):
        if word == "text":
            if isinstance(item, str):
                found.texts.append({"node": node, "text": item})
            continue
        output = Output.of(node, _named(item) if isinstance(item, str) else item)
        if output is None or output.type == "temp" or (key := tuple(output.query.values())) in known:
            continue
        known.add(key)
        mime = mime_of(output.filename)
        if mime == _OTHER and isinstance(item, dict):  # VideoHelperSuite says what it made: video/h264-mp4
            mime = _said(item.get("format")) or mime
        found.files.append(OutputFile(output, mime, _GROUPS.get(mime.partition("/")[0], "files"), word))
    return found


def mime_of(filename: str) -> str:
    """Return the media type of a file, by its name."""
    return _MIME.get(PurePosixPath(filename.lower()).suffix[1:], _OTHER)


def failure(raised: dict[str, Any]) -> str:
    """Return which node raised what, by ComfyUI's `execution_error`."""
    return messages.NODE_FAILED.format(
        kind=shown(raised.get("node_type"), 80),
        node=shown(raised.get("node_id"), 40),
        message=shown(raised.get("exception_message"), LONGEST_MESSAGE),
    )


def _items(outputs: Any) -> Iterator[tuple[str, str, Any]]:
    for node, shows in outputs.items() if isinstance(outputs, dict) else ():
        for word, items in shows.items() if isinstance(shows, dict) else ():
            for item in items if isinstance(items, list) else (items,):
                yield node, word, item


def _named(path: str) -> dict[str, str] | None:
    """Return what ComfyUI's Preview3D names by its path below the output folder."""
    folder, _, name = path.rpartition("/")
    return {"filename": name, "subfolder": folder} if path.lower().endswith(_3D) else None


def _said(kind: Any) -> str | None:
    if not isinstance(kind, str) or kind.partition("/")[0] not in _GROUPS:
        return None
    return kind if _MIME_TYPE.fullmatch(kind) else None
