"""Where outputs are saved: below one folder, under names that a server chose, and never over what is there.

A server may be anybody's, so its names are only wishes. A name is made harmless first (`parts`). Folders are
then opened one by one without following links, and a name that is taken gets a number: cat_2.png.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Final

from comfy.failure import CANNOT_SAVE, ComfyError
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from pathlib import Path

LARGEST: Final = 16 << 30  # bytes of all that one command saves, unless --max-bytes says otherwise
_LONGEST: Final = 180  # bytes of a name: 255 is the limit of most file systems, and a number may be added
_DEEPEST: Final = 16
_TRIES: Final = 10_000
_NO_NAME: Final = "output"
# What programs read as data. Anything else gets `.bin` at its end: a Makefile, a sitecustomize.py or a script
# in the folder where somebody works would be run by what they type next.
_DATA: Final = frozenset(
    (
        "aac",
        "aif",
        "aiff",
        "avif",
        "avi",
        "bmp",
        "csv",
        "exr",
        "fbx",
        "flac",
        "gif",
        "glb",
        "gltf",
        "gguf",
        "hdr",
        "heic",
        "heif",
        "ico",
        "jpeg",
        "jpg",
        "json",
        "jxl",
        "ksplat",
        "latent",
        "m4a",
        "m4v",
        "mkv",
        "mov",
        "mp3",
        "mp4",
        "mtl",
        "npy",
        "npz",
        "obj",
        "ogg",
        "opus",
        "pdf",
        "ply",
        "png",
        "psd",
        "safetensors",
        "splat",
        "spz",
        "srt",
        "stl",
        "svg",
        "tga",
        "tif",
        "tiff",
        "txt",
        "usdz",
        "vtt",
        "wav",
        "webm",
        "webp",
        "zip",
    )
)
# Names that open a device on Windows, whose users mount folders such as these.
_DEVICES: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE | re.DOTALL)


def parts(subfolder: str, filename: str) -> list[str]:
    """Return folders and name as they are used here: relative, visible, and of letters that can be seen."""
    folders = [_harmless(part) for part in re.split(r"[/\\]", subfolder[:4096])]
    name = _harmless(re.split(r"[/\\]", filename[-4096:])[-1]) or _NO_NAME
    if name.rpartition(".")[2].lower() not in _DATA or "." not in name:
        name += ".bin"
    return [*[folder for folder in folders if folder][:_DEEPEST], name]


def _harmless(part: str) -> str:
    # A colon leads to another stream of a file on Windows (a.png::$DATA), or to a drive.
    part = "".join(each if each.isprintable() and each != ":" else "_" for each in part)
    part = part.lstrip(". ").rstrip(". ")
    if part.startswith(("-", "~")):
        part = f"_{part[1:]}"
    if _DEVICES.fullmatch(part):
        part = f"_{part}"
    stem, dot, end = part.rpartition(".")
    if not dot or len(end.encode()) > _LONGEST // 2:
        stem, dot, end = part, "", ""
    room = _LONGEST - len(f"{dot}{end}".encode())
    return stem.encode()[:room].decode(errors="ignore") + dot + end


class Saver:
    """Saves below `out`, no more than `limit` bytes in all. `out` is made when there is something for it."""

    def __init__(self, out: Path, limit: int = LARGEST) -> None:
        self._out = out
        self._left = self._limit = limit

    @property
    def full(self) -> bool:
        """Whether more has come than may be saved."""
        return self._left < 0

    async def save(self, subfolder: str, filename: str, chunks: AsyncIterable[bytes]) -> tuple[Path, int]:
        """Write a file aside, then give it a free name; returns its path and size. Raises ComfyError."""
        wanted = parts(subfolder, filename)
        try:
            folder = self._folder(wanted[:-1])
        except OSError as error:
            raise self._cannot(wanted, error) from None
        aside = f".{os.urandom(8).hex()}.part"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(aside, flags, 0o666, dir_fd=folder), "wb") as file:
                async for chunk in chunks:
                    self._left -= len(chunk)
                    if self._left < 0:
                        raise ComfyError(
                            f"ComfyUI sends more than {self._limit} bytes: --max-bytes raises that.",
                            CANNOT_SAVE,
                        )
                    file.write(chunk)
                size = file.tell()
            name = _free(folder, wanted[-1])
            os.replace(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            raise self._cannot(wanted, error) from None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(aside, dir_fd=folder)
            os.close(folder)
        return self._out.joinpath(*wanted[:-1], name), size

    def _folder(self, names: list[str]) -> int:
        """Open a folder below `out`, made where it is missing; a link on the way is not followed."""
        self._out.mkdir(parents=True, exist_ok=True)
        folder = os.open(self._out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in names:
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folder)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                inner = os.open(name, flags, dir_fd=folder)
            finally:
                os.close(folder)
            folder = inner
        return folder

    def _cannot(self, wanted: list[str], error: OSError) -> ComfyError:
        path = self._out.joinpath(*wanted)
        return ComfyError(f"{shown(path)} cannot be written: {os.strerror(error.errno or 0)}.", CANNOT_SAVE)


def _free(folder: int, name: str) -> str:
    """Reserve the first name that is free: the one given, or one with a number. Raises OSError."""
    stem, dot, end = name.rpartition(".")
    if not dot or not stem:
        stem, dot, end = name, "", ""
    last = FileExistsError(17, "File exists")
    for number in range(1, _TRIES):
        candidate = name if number == 1 else f"{stem}_{number}{dot}{end}"
        try:
            os.close(
                os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
            )
        except FileExistsError as taken:
            last = taken
        else:
            return candidate
    raise last
