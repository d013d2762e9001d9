"""What bytes turn out to be: no web page and no half file is ever taken for weights."""

from __future__ import annotations

import hashlib
import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pod.net.http import RefusedError
from pod.util import bounded_json
from pod.util.pickles import HEAD, holds, holds_old, is_harmless, is_pickle

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


Block = bytes | memoryview
_PAGES = {"text/html": {".html", ".htm"}, "application/xhtml+xml": {".xhtml"}, "application/json": {".json"}}
BLOCK = 1 << 20
_HEADED = (".safetensors", ".sft")
FORMAT_LIMIT = 100_000_000  # bytes of a header: https://github.com/huggingface/safetensors#format
# What is read of that: those of real files are below 1 MB, and parsing takes sixteen times as much memory.
HEADER_LIMIT = 4 << 20


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
    """Read a file in blocks, each of which is good until the next one is asked for. Raises OSError.

    No more is read than its size at the start: a link to /proc, or a file that grows, may have no end.
    """
    view = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as handle:
        left = os.fstat(handle.fileno()).st_size
        while left and (count := handle.readinto(view[:left])):
            left -= count
            yield view[:count]


def check_type(content_type: str | None, name: str, host: str) -> None:
    """Refuse a page (a login, an error with status 200) that is sent in place of a file."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in _PAGES.get(kind, {suffix}):
        raise RefusedError(
            f"was not sent: {host} answered with a page ({kind}) in its place; "
            "open the address in a browser to see what it requires, most often a login or a licence"
        )


def check_contents(path: Path, name: str, *, vouched: bool) -> None:
    """Judge a file that has come, under the name that it is going to have. Raises RefusedError, OSError.

    Args:
        path: Where it lies now.
        name: Its name from now on.
        vouched: Whether a person, or the image's models.json, gave its sha256; what a hub says of its own
            file does not count.
    """
    if not vouched:
        if is_pickle(name):
            raise RefusedError(_UNVOUCHED.format("is a pickle"))
        with path.open("rb") as handle:
            head = handle.read(HEAD)
        # A header of 640 bytes begins as a pickle of protocol 2 does, so these are looked at more closely.
        what = None if name.lower().endswith(_HEADED) else holds(head)
        if what is None and not is_harmless(name):
            what = holds_old(head)
        if what:
            raise RefusedError(_UNVOUCHED.format(f"is {what}, whatever its name says"))
    _check_safetensors(path, name, vouched=vouched)


_UNVOUCHED = (
    "{}, which can run code when it is loaded, and no sha256 was given for it: choose a .safetensors file, "
    "or vouch for it by adding its hash, #sha256=…"
)


def _check_safetensors(path: Path, name: str, *, vouched: bool) -> None:
    """Refuse a .safetensors file that does not begin with a header: a length of 8 bytes, then JSON."""
    if not name.lower().endswith(_HEADED):
        return
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if HEADER_LIMIT < length < min(FORMAT_LIMIT, size) and vouched:
            return  # its hash says that it is what was wanted, whatever that is
        header = handle.read(length) if length < min(HEADER_LIMIT, size) else b""
    try:
        entries = bounded_json.parse(header)
        ends = [entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__"]
        described = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError):
        raise RefusedError("is not a .safetensors file, whatever its name says; correct its source") from None
    if described != size:
        raise RefusedError(f"has {size} bytes, its own header speaks of {described}; correct its source")
