"""The sizes of pictures by their headers, and the task that files mean."""

from __future__ import annotations

import struct

import pytest
from unit.server.fake_model import png

from server.requests.image_size import dimensions

_FRAME = struct.pack(">HBHH", 11, 8, 30, 40) + b"\x01\x01\x11\x00"
_LARGER = struct.pack(">HBHH", 11, 8, 3000, 40) + b"\x01\x01\x11\x00"
_JPEG = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc2" + _FRAME
_SCAN = b"\xff\xda\x00\x04ab data \xff\xc0" + _LARGER


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


_LOSSY = (b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 40, 30 | 1 << 14))
_LOSSLESS = (b"VP8L", b"\x2f" + struct.pack("<I", 39 | 29 << 14))
_CANVAS = (b"VP8X", b"\0\0\0\0" + (39).to_bytes(3, "little") + (2999).to_bytes(3, "little"))
SIZES: list[tuple[str, bytes, tuple[int, int] | None]] = [
    ("png", png(40, 30), (40, 30)),
    ("png", png(40, 30)[:20], None),
    ("png", png(40, 30, said=(0, 30)), None),
    ("png", png(40, 30)[:33] + png(1, 1, said=(60_000, 60_000))[8:], (60_000, 60_000)),  # the last one counts
    ("jpg", _JPEG + _SCAN, (40, 30)),
    ("jpg", _JPEG + b"\xff\xc0" + _LARGER + _SCAN, (40, 3000)),
    ("jpg", _JPEG, None),
    ("jpg", b"\xff\xd8" + _SCAN, None),
    ("jpg", b"\xff\xd8\xff\xe0\x00\x00" * 3, None),
    ("webp", webp(_LOSSY), (40, 30)),
    ("webp", webp(_LOSSLESS), (40, 30)),
    ("webp", webp(_CANVAS, (b"ICCP", b"odd"), _LOSSY), (40, 3000)),
    ("webp", webp(), None),
    ("webp", webp((b"VP8X", b"")), None),
    ("jpg", b"\xff\xd8\xff\xe0\x00\x02" + b"\0" * 100 + _SCAN, None),
    ("jpg", b"\xff\xd8\xff\xc2" + _FRAME + b"\0" * 100 + b"\xff" * 100 + _SCAN[1:], (40, 30)),
    ("jpg", b"\xff\xd8\xff\xc2" + _FRAME + b"\xff" * 100, None),
    ("webp", webp(*[_LOSSY] * 10_001), None),  # nobody looks at more
]


@pytest.mark.parametrize(("ending", "content", "wanted"), SIZES)
def test_the_size_of_a_picture_is_read_off_its_header(
    ending: str, content: bytes, wanted: tuple[int, int] | None
) -> None:
    assert dimensions(content, ending) == wanted
