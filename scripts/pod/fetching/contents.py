"""What bytes turn out to be: no web page and no half file is ever taken for weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pod.fetching.web import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pod.fetching.part import Part

Block = bytes | memoryview
_PICKLES = frozenset({".pt", ".pt2", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".dill"})
# What cannot hold one, whatever stands before: `model.pth.tar` is a pickle, `model.pth.safetensors` is none.
_HARMLESS = frozenset({".safetensors", ".sft", ".gguf", ".onnx", ".json", ".txt", ".yaml", ".yml", ".md"})
_PAGES = {"text/html": {".html", ".htm"}, "application/xhtml+xml": {".xhtml"}, "application/json": {".json"}}
_BLOCK = 1 << 20
_HEADER_LIMIT = 100_000_000  # bytes; the format's own: https://github.com/huggingface/safetensors#format


def is_pickle(name: str) -> bool:
    """Tell whether loading a file of this name can run code that lies in it."""
    suffixes = PurePosixPath(name.lower()).suffixes
    return bool(_PICKLES.intersection(suffixes)) and suffixes[-1] not in _HARMLESS


def digest(blocks: Iterable[Block], size: int, expected: str) -> str:
    """Hash blocks as `expected` was: `sha256:…`, or `git:…`, git's object id, for files outside LFS."""
    kind = expected.partition(":")[0]
    state = hashlib.sha256()
    if kind == "git":
        state = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for block in blocks:
        state.update(block)
    return f"{kind}:{state.hexdigest()}"


def of_file(path: Path) -> Iterator[Block]:
    """Read a file in blocks, each of which is good until the next one is asked for. Raises OSError."""
    view = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as handle:
        while count := handle.readinto(view):
            yield view[:count]


def of_part(part: Part) -> Iterator[Block]:
    """Read what has arrived, in order, while the rest still arrives; as `of_file`.

    Raises OSError, ClosedError.
    """
    view = memoryview(bytearray(_BLOCK))
    offset = 0
    while count := part.read(offset, view):
        yield view[:count]
        offset += count


def check_type(content_type: str | None, name: str, host: str) -> None:
    """Refuse a page (a login, an error with status 200) that is sent in place of a file."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in _PAGES.get(kind, {suffix}):
        raise RefusedError(
            f"was not sent: {host} answered with a page ({kind}) in its place; "
            "open the address in a browser to see what it wants, a login or a licence most often"
        )


def check_safetensors(path: Path, name: str) -> None:
    """Refuse a .safetensors file that does not begin with a header: a length of 8 bytes, then JSON."""
    if not name.endswith((".safetensors", ".sft")):
        return
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = handle.read(length) if length < min(_HEADER_LIMIT, size) else b""
    try:
        ends = [
            entry["data_offsets"][1] for key, entry in json.loads(header).items() if key != "__metadata__"
        ]
        described = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError):
        raise RefusedError("is no .safetensors file, whatever its name says; correct its source") from None
    if described != size:
        raise RefusedError(f"has {size} bytes, its own header speaks of {described}; correct its source")
