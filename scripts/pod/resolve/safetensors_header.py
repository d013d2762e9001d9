"""The head of a .safetensors file: what tensors it holds, read from afar before a byte of them is fetched.

Format: https://github.com/huggingface/safetensors#format. Eight bytes with the header's length, the header as
JSON, then the tensors: in one piece, without a hole and without overlap. A header that does not add up is
refused, for a file that lies about that may lie about anything.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Any

from pod.net import content_range
from pod.net.content_range import PARTIAL
from pod.net.http import RefusedError, TransientError
from pod.net.integrity import FORMAT_LIMIT, HEADER_LIMIT
from pod.util import bounded_json
from pod.util.dataclass import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pod.net.http import Answer, Limits
    from pod.net.hubs import Request

_MOST_DIMENSIONS = 32
_LONGEST_NAME = 1000  # letters
_FIRST = 1 << 20  # bytes asked for at first: the headers of nearly all files are shorter
_BLOCK = 1 << 16
_BITS = (
    dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
    | dict.fromkeys(("U16", "I16", "F16", "BF16"), 16)
    | dict.fromkeys(("U32", "I32", "F32"), 32)
    | dict.fromkeys(("U64", "I64", "F64", "C64"), 64)
    | {"C128": 128, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
)  # a type that is not here is one that came later


@dataclass(frozen=True)
class SafetensorsHeader:
    """The shape of each tensor by its name, the metadata, the bytes of the file, and those of each dtype."""

    tensors: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    size: int
    dtypes: Mapping[str, int] = field(default_factory=dict)


def fetch(request: Request, limits: Limits) -> SafetensorsHeader:
    """Ask for the head of a file, once where it is of the usual size. Raises RefusedError, TransientError."""
    with request.send(limits, {"Range": f"bytes=0-{_FIRST - 1}"}) as answer:
        answer.hurry()
        size = _size(answer)
        head = _take(answer, b"", 8)
        length = _length(head, size)
        head = _take(answer, head, min(8 + length, _FIRST) if answer.status == PARTIAL else 8 + length)
    if len(head) < 8 + length:
        with request.send(limits, {"Range": f"bytes={len(head)}-{7 + length}"}) as answer:
            answer.hurry()
            if answer.status != PARTIAL:
                head = b""  # from its start again, then
            head = _take(answer, head, 8 + length)
    return parse(head, size)


def read(path: Path) -> SafetensorsHeader:
    """Read the head of a file that is here. Raises RefusedError, OSError."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = handle.read(8)
        return parse(length + handle.read(_length(length, size)), size)


def parse(head: bytes, size: int) -> SafetensorsHeader:
    """Read the first bytes of a file of `size` bytes, up to the header's end. Raises RefusedError."""
    length = _length(head[:8], size)
    try:
        entries = bounded_json.parse(head[8 : 8 + length], pairs=_once)
    except ValueError:
        raise _not_safetensors("is not JSON, or has a size that no model has") from None
    if not isinstance(entries, dict):
        raise _not_safetensors("is not a JSON object")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _not_safetensors("has metadata that is not text")
    shapes, spans, dtypes = {}, [], Counter[str]()
    for name, entry in entries.items():
        shapes[name], span = _tensor(name, entry)
        spans.append(span)
        dtypes[str(entry["dtype"])] += span[1] - span[0]
    _check_spans(spans, size - 8 - length)
    return SafetensorsHeader(shapes, metadata, size, dict(dtypes))


def _tensor(name: str, entry: Any) -> tuple[tuple[int, ...], tuple[int, int]]:
    try:
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        bits = _BITS.get(entry["dtype"])
    except (KeyError, TypeError, ValueError):
        raise _not_safetensors(f"describes {name[:80]!r} in a way that the format does not know") from None
    if len(name) > _LONGEST_NAME or len(shape) > _MOST_DIMENSIONS:
        raise _not_safetensors(f"describes {name[:80]!r} with more letters or dimensions than tensors have")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise _not_safetensors(f"gives {name[:80]!r} a shape or place that is not a number of bytes")
    if bits is not None and end - begin != -(-prod(shape) * bits // 8):
        raise _not_safetensors(f"gives {name[:80]!r} {end - begin} bytes, which do not fit its shape")
    return shape, (begin, end)


def _check_spans(spans: Sequence[tuple[int, int]], room: int) -> None:
    at = 0
    for begin, end in sorted(spans):
        if begin != at or end < begin:
            raise _not_safetensors("leaves holes between tensors, or lets them overlap")
        at = end
    if at != room:
        raise _not_safetensors(f"speaks of {at} bytes of tensors where the file has {room}")


def _length(head: bytes, size: int) -> int:
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or not 2 <= length <= min(FORMAT_LIMIT, size - 8):  # noqa: PLR2004 (`{}` is the shortest)
        raise _not_safetensors("has an impossible length")
    if length > HEADER_LIMIT:
        raise RefusedError(
            f"cannot be looked into: its header has {length} bytes, and {HEADER_LIMIT} are read at most"
        )
    return length


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _size(answer: Answer) -> int:
    size = content_range.size(answer)
    if size is None or (answer.status == PARTIAL and content_range.start(answer) != 0):
        raise RefusedError(f"cannot be looked into: {answer.host} does not say how many bytes it has")
    return size


def _take(answer: Answer, head: bytes, count: int) -> bytes:
    """Read on until `count` bytes are there; the rest of the answer is left alone."""
    found = bytearray(head)
    buffer = memoryview(bytearray(_BLOCK))
    while len(found) < count:
        got = answer.readinto(buffer[: min(_BLOCK, count - len(found))])
        if not got:
            raise TransientError(f"{answer.host}: the connection closed before the end")
        found += buffer[:got]
    return bytes(found)


def _not_safetensors(what: str) -> RefusedError:
    return RefusedError(f"is not a valid .safetensors file: its header {what}; choose another source")
