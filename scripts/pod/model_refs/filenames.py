"""Names from outside: those in a server's answer are mended, those that a person wrote are checked."""

from __future__ import annotations

import re
import unicodedata

# What ComfyUI 0.33.0 lists (folder_paths.py), and two that it does not.
SUFFIXES = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf", ".onnx")
UNLISTED = frozenset({".gguf", ".onnx"})  # which only custom nodes show

# Room is left for what stands beside a file while it is fetched and checked: `.NAME.verified.json.12345`.
LONGEST = 200  # bytes of UTF-8; file systems take 255
_LONGEST_RAW = 4096  # letters that are looked at: putting a million accents in order takes minutes
_FORBIDDEN = re.compile(
    r'[<>:"|?*]'
)  # https://learn.microsoft.com/windows/win32/fileio/naming-a-file: volumes travel
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)")


def safe(raw: str) -> str:
    """Return a file name that stays in its folder. Raises ValueError where nothing is left of it."""
    name = re.split(r"[/\\]", unicodedata.normalize("NFC", raw[-_LONGEST_RAW:]))[-1]
    name = "".join(letter for letter in name if unicodedata.category(letter)[0] != "C")
    name = _FORBIDDEN.sub("_", " ".join(name.split())).lstrip(".- ").rstrip(". ")
    if not name.strip("_"):
        raise ValueError(f"{raw[:80]!r} is not a file name")
    if _RESERVED.match(name):
        name = f"_{name}"
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name, ""
    keep = LONGEST - len(f"{dot}{suffix}".encode())
    if keep < 1:
        raise ValueError(f"{raw[:80]!r} is not a file name")
    return stem.encode()[:keep].decode(errors="ignore").rstrip(". ") + dot + suffix


def checked_path(text: str) -> tuple[str, ...]:
    """Return the parts of a relative path. Raises ValueError with what is wrong with it."""
    parts = tuple(text.split("/"))
    for part in parts:
        if part in {"", ".", ".."}:
            raise ValueError("is not a plain path below the models folder")
        if part[0] in ".-~" or part != part.strip() or not part.isprintable() or "\\" in part:
            raise ValueError(f"has {part!r} in it, which is not the name of a file or folder")
        if len(part.encode()) > LONGEST:
            raise ValueError(f"has a part of more than {LONGEST} bytes")
    return parts


def suffix(name: str) -> str:
    """Return the ending that says what a file is, in lower case: `.safetensors`."""
    return next((known for known in SUFFIXES if name.lower().endswith(known)), "")
