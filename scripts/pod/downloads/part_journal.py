"""The journal of a part: what is being fetched, and which chunks of it have arrived.

`<name>.state` beside `<name>.part`: a line of JSON that says what is being fetched and under which kernel,
then the number of each chunk, one a line, appended once its bytes are written; `=N` means that the first N of
them were flushed to disk. The kernel keeps what a killed process wrote, so under the same one every line is a
claim; under another one, after a power cut or on another host of a network volume, only what was flushed is.
A torn last line does not count.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from pod.util import bounded_json, untrusted_files
from pod.util.dataclass import asdict, dataclass
from pod.util.file_lease import boot_id

if TYPE_CHECKING:
    from pathlib import Path

NEW = os.O_CREAT | os.O_EXCL
_LARGEST_JOURNAL = 16 << 20  # bytes; a file of 1 TB in chunks of 8 MiB has lines of 1 MB
_LARGEST_FILE = 1 << 50  # bytes
_MOST_CHUNKS = 1 << 17  # of a file: 1 TiB in chunks of 8 MiB
# What a request may carry (RFC 9110, 5.5) and a hub's hash; anybody can write a journal on a shared volume.
_IDENTITY = re.compile(r"[ -~\x80-\xff]{0,1024}")
_EXPECTED = re.compile(r"[a-z0-9]{0,16}:?[0-9a-f]{0,128}")


@dataclass(frozen=True)
class PartMetadata:
    """What is being fetched; two answers may be mixed in one part only when this is equal.

    `identity` is what the server says that names the bytes (an ETag), `expected` the hash we want.
    """

    size: int
    chunk: int
    identity: str
    expected: str


def create(path: Path, contents: PartMetadata, arrived: list[int]) -> int:
    """Write a journal and return its descriptor, open to append."""
    journal = untrusted_files.open_plain(path, NEW | os.O_WRONLY | os.O_APPEND)
    lines = [json.dumps({**asdict(contents), "kernel": boot_id()}), *map(str, arrived)]
    if arrived:
        lines.append(f"={len(arrived)}")
    os.write(journal, "".join(f"{line}\n" for line in lines).encode())
    return journal


def read(path: Path) -> tuple[PartMetadata, list[int]]:
    """Read what is being fetched, and the chunks that are safe. Raises OSError, ValueError, TypeError."""
    written = untrusted_files.read_plain(path, _LARGEST_JOURNAL)
    head, *lines = written[: written.rindex(b"\n")].split(b"\n")
    fields = bounded_json.parse(head)
    kernel = fields.pop("kernel", "") if isinstance(fields, dict) else ""
    contents = PartMetadata(**fields)
    _check(contents)
    count = -(-contents.size // contents.chunk)
    claims = [line for line in lines if not line.startswith(b"=")]
    if not kernel or kernel != boot_id():
        marks = [int(line[1:]) for line in lines if line.startswith(b"=") and line[1:].isdigit()]
        claims = claims[: max(marks, default=0)]
    chunks = [int(line) for line in claims if line.isdigit()]
    return contents, list(dict.fromkeys(chunk for chunk in chunks if chunk < count))


def _check(contents: PartMetadata) -> None:
    """Check what a journal says, each field by its type. Raises ValueError."""
    size, chunk = contents.size, contents.chunk
    if not (type(size) is int and 0 <= size <= _LARGEST_FILE and type(chunk) is int and chunk > 0):
        raise ValueError("sizes that are none")
    if size > chunk * _MOST_CHUNKS:
        raise ValueError("more chunks than a file is fetched in")
    for text, form in ((contents.identity, _IDENTITY), (contents.expected, _EXPECTED)):
        if not (isinstance(text, str) and form.fullmatch(text)):
            raise ValueError("an identity or a hash that is none")


def remove(path: Path) -> None:
    """Remove a part and its journal, if they are there. Raises PlantedError for a folder, OSError."""
    for each in (path, state(path).with_suffix(".state.new"), state(path)):
        untrusted_files.remove(each)


def state(path: Path) -> Path:
    """Return where the journal of a part lies."""
    return path.with_suffix(".state")
