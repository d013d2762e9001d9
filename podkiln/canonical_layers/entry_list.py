"""The entries of a layer as one small file: what lies below another is known without its tar.

JSON in zstd: a key, the names of an Entry's fields, and a row of their values for each; bytes as text.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, Final

import zstandard

from podkiln.canonical_layers.entries import Entry

_MAX_BYTES: Final = 1 << 30  # of the text
_TEXT: Final = "latin-1"  # any byte is one character
_FIELDS: Final = [each.name for each in fields(Entry)]
_TYPES: Final = [type(getattr(Entry(b"", b"", 0, 0, 0, 0), name)) for name in _FIELDS]


def dump(entries: list[Entry], key: str) -> bytes:
    """Return the file. `key`: what it belongs to."""
    rows = [[_plain(getattr(entry, name)) for name in _FIELDS] for entry in entries]
    text = json.dumps([key, _FIELDS, rows], separators=(",", ":")).encode()
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(text)


def load(data: bytes, key: str) -> list[Entry]:
    """Return the entries. Raises ValueError for what `dump` has not written for this key."""
    try:
        text = zstandard.ZstdDecompressor().decompress(data, max_output_size=_MAX_BYTES)
        owner, names, rows = json.loads(text)
        if (owner, names) != (key, _FIELDS):
            raise ValueError("it belongs to something else, or is of another version")
        return [_entry(row) for row in rows]
    except (zstandard.ZstdError, TypeError, RecursionError) as wrong:
        raise ValueError(str(wrong)) from None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(_TEXT)
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _entry(row: Any) -> Entry:
    values = [_value(each) for each in row]
    if [type(each) for each in values] != _TYPES:
        raise ValueError("a row in it is that of no entry")
    return Entry(*values)


def _value(plain: Any) -> Any:
    if isinstance(plain, str):
        return plain.encode(_TEXT)
    return tuple(map(_value, plain)) if isinstance(plain, list) else plain
