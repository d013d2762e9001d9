"""Tars written by hand, byte by byte, so that they can also be written as no writer of layers would."""

from __future__ import annotations

from typing import Final

USTAR, GNU, OLD = b"ustar\x0000", b"ustar  \x00", bytes(8)
END: Final = bytes(1024)
_PREFIX, _TRAILER = 345, 512


def octal(value: int, length: int) -> bytes:
    """Return a field of octal digits, ended by a zero."""
    return b"%0*o\0" % (length - 1, value)


def block(
    name: bytes,
    *,
    size: int | bytes = 0,
    kind: bytes = b"0",
    target: bytes = b"",
    magic: bytes = USTAR,
    prefix: bytes = b"",
    patches: dict[int, bytes] | None = None,
    signed: bool = False,
) -> bytes:
    """Return one header. `patches`: bytes to put at an offset before the checksum is made."""
    data = bytearray(512)
    fields = {
        0: name,
        100: octal(0o755 if kind == b"5" else 0o644, 8),
        108: octal(0, 8),
        116: octal(0, 8),
        124: size if isinstance(size, bytes) else octal(size, 12),
        136: octal(1_700_000_000, 12),
        148: b" " * 8,
        156: kind,
        157: target,
        257: magic,
        _PREFIX: prefix,
        **(patches or {}),
    }
    for at, field in fields.items():
        data[at : at + len(field)] = field
    assert len(data) == _TRAILER, "a field is too long"
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in data)
    data[148:156] = b"%06o\0 " % total
    return bytes(data)


def padded(data: bytes) -> bytes:
    """Fill up the last block."""
    return data + bytes(-len(data) % 512)


def file(name: bytes, data: bytes = b"", **more: object) -> bytes:
    """Return a file."""
    return block(name, **{"size": len(data), **more}) + padded(data)  # type: ignore[arg-type]


def record(key: bytes, value: bytes) -> bytes:
    """Return one record of a pax header: its length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != (counted := len(str(length)) + len(rest)):
        length = counted
    return b"%d" % length + rest


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """Return a pax header with its records."""
    data = b"".join(record(key, value) for key, value in records)
    return file(b"PaxHeaders/x", data, kind=kind)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """Return what GNU puts before a member with a long name (L), or a long link (K)."""
    return file(b"././@LongLink", name + b"\0", kind=kind, magic=GNU)
