"""The members of a layer's tar, read strictly: what two readers could take differently is an UnclearError.

A tar has no single definition: GNU, POSIX (ustar and pax) and older headers lie on the same 512 bytes, and
readers differ in what wins. Engines use Go's archive/tar. Here only what writers of layers make is accepted:
ustar headers, with or without one pax header before them, and GNU headers, with or without long names.

Sources: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"; Go's
archive/tar/reader.go.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pod.util.printable import printable
from podkiln.verify import attributes
from podkiln.verify.unpack import PackedError, Reader, UnclearError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Kind: TypeAlias = Literal["file", "hard link", "link", "device", "whiteout device", "folder", "fifo"]

_BLOCK: Final = 512
_ZEROS: Final = bytes(_BLOCK)
_USTAR, _GNU = b"ustar\x0000", b"ustar  \x00"
_KINDS: Final[dict[bytes, Kind]] = {
    b"0": "file",
    b"1": "hard link",
    b"2": "link",
    b"3": "device",
    b"4": "device",
    b"5": "folder",
    b"6": "fifo",
}
_LONG: Final = {b"L": "path", b"K": "linkpath"}
_REFUSED: Final = {
    b"\0": "an old-style member",
    b"7": "a contiguous file",
    b"S": "a sparse file",
    b"g": "a global pax header",
}
_MOST_MODE: Final = 1 << 21  # what 7 octal digits hold
_MOST_ID: Final = (1 << 32) - 1  # which means "no change" to chown
_MOST_TIME: Final = 1 << 40  # seconds: years enough, and far below what any clock of an engine holds
_MOST_MAJOR, _MOST_MINOR = 1 << 12, 1 << 20  # Linux include/linux/kdev_t.h: more is cut, perhaps to 0:0
_NUMBERS: Final = (
    (100, 8, "mode", _MOST_MODE),
    (108, 8, "owner", _MOST_ID),
    (116, 8, "group", _MOST_ID),
    (136, 12, "time", _MOST_TIME),
    (329, 8, "device", _MOST_MAJOR),
    (337, 8, "device", _MOST_MINOR),
)
"""Where in every header a number stands, of how many bytes, and below what it is to be.

Go refuses the header when one is none; the kernel refuses or cuts what is larger.
"""
_OCTAL: Final = re.compile(rb" *([0-7]*)[ \0]*")
_OCTAL_LIMIT: Final = 8 << 30  # 11 octal digits
_RECORD: Final = re.compile(rb"([1-9][0-9]{0,6}) ([^=\0]+)=", re.DOTALL)
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_TIME: Final = re.compile(r"(-?[0-9]{1,13})(\.[0-9]{1,30})?")
_TEXT_KEYS: Final = ("path", "linkpath", "uname", "gname")
_TIME_KEYS: Final = ("mtime", "atime", "ctime")
_XATTR: Final = "SCHILY.xattr."
_MOST_EXTENDED: Final = 1 << 20  # bytes of one pax header, as Go reads it
_MOST_PATH: Final = 3072  # bytes; PATH_MAX is 4096, of which the folders of the engine take some
_MOST_TARGET: Final = 1024  # bytes; what XFS takes of a symbolic link
_MOST_NAME: Final = 255  # NAME_MAX


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its path (relative, plain; empty for the root), what it is, and what a link names.

    `target` of a hard link is a path like `path`; that of a symbolic link is as it stands. `usual`: if it is
    a folder, it is root's, of mode 0755, and without extended attributes.
    """

    path: str
    kind: Kind
    target: str = ""
    size: int = 0
    usual: bool = True


@dataclass
class _Extended:
    """The extension headers (pax, GNU long name) that apply to the next member."""

    form: bytes = b""  # the magic that must follow: pax records belong to ustar, long names to GNU
    records: dict[str, str] | None = None
    attributes: dict[str, bytes] = field(default_factory=dict)

    @property
    def told(self) -> dict[str, str]:
        return self.records or {}


def members(chunks: Iterable[bytes]) -> Iterator[Member]:
    """Yield the members of a tar, and read it to its end, which zeros must fill. Raises UnclearError."""
    stream = Reader(chunks)
    extended = _Extended()
    while True:
        start = stream.at
        block = stream.exactly(_BLOCK, "a header")
        try:
            if block == _ZEROS:
                _end(stream, extended)
                return
            form, size = _form(block), _number(block, 124, 12, "size")
            kind = block[156:157]
            if kind == b"x":
                _pax(stream, form, size, extended)
            elif kind in _LONG:
                _long_name(stream, form, size, _LONG[kind], extended)
            else:
                yield _member(block, form, kind, size, extended)
                size = int(extended.told.get("size", size))
                stream.skip(size + -size % _BLOCK, "a file")
                extended = _Extended()
        except PackedError:
            raise
        except UnclearError as wrong:
            raise UnclearError(f"{wrong} (header at byte {start})") from None


def _end(stream: Reader, extended: _Extended) -> None:
    """Read what follows the last member: at least one more block, and zeros alone."""
    if extended.form:
        raise UnclearError("it ends after a header that belongs to another one")
    if stream.read(_BLOCK) != _ZEROS:
        raise UnclearError("its end is not marked by two blocks of zeros")
    for piece in stream.remainder():
        if bytes(piece).strip(b"\0"):
            raise UnclearError("something other than zeros follows its end")


def _form(block: bytes) -> bytes:
    """Return a header's magic when it is one of the two, and its checksum is right."""
    if _number(block, 148, 8, "checksum") != sum(block) - sum(block[148:156]) + 8 * 32:
        raise UnclearError("it has a header with a wrong checksum")
    form = block[257:265]
    if form not in (_USTAR, _GNU):
        raise UnclearError(f"it has a header of an old or unknown format ({form!r})")
    if form == _USTAR and block[500:].strip(b"\0"):
        raise UnclearError("it has a header with something in its padding")
    if form == _GNU:
        # A file's two more times may be there. Go takes what is not a time for a path to put before the name.
        _number(block, 345, 12, "time"), _number(block, 357, 12, "time")
        if block[369:].strip(b"\0"):
            raise UnclearError("it has a sparse or continued GNU header")
    for start, length, name, limit in _NUMBERS:
        if not -_MOST_TIME < _number(block, start, length, name) < limit:
            raise UnclearError(f"it has a header with a {name} that no file system holds")
    return form


def _number(block: bytes, start: int, length: int, name: str) -> int:
    """Read a number: octal digits between blanks, or, in a GNU header, one in base 256.

    Only a time may be negative: it is before 1970 then.
    """
    data = block[start : start + length]
    octal = _OCTAL.fullmatch(data)
    if octal:
        return int(octal[1] or b"0", 8)
    if block[257:265] == _GNU and (data[0] == 0x80 or (data[0] == 0xFF and name == "time")):  # noqa: PLR2004 - GNU tar manual, "Extensions"
        value = int.from_bytes(data[1:], "big", signed=data[0] == 0xFF)  # noqa: PLR2004
        if -1 << 63 <= value < 1 << 63:
            return value
    raise UnclearError(f"the {name} in a header is not plainly a number ({data!r})")


def _text(data: bytes, what: str) -> str:
    """Read a field of text: UTF-8, filled up with zeros."""
    text, _, rest = data.partition(b"\0")
    if rest.strip(b"\0"):
        raise UnclearError(f"it has a {what} with something after its end")
    return _utf8(text, what)


def _utf8(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UnclearError(f"it has a {what} that is not UTF-8") from None


def _content(stream: Reader, size: int, what: str) -> bytes:
    if not 0 < size <= _MOST_EXTENDED:
        raise UnclearError(f"it has {what} of {size} bytes")
    return stream.exactly(size + -size % _BLOCK, what)[:size]


def _long_name(stream: Reader, form: bytes, size: int, key: str, extended: _Extended) -> None:
    """Read a GNU long name: all of it but the last byte, which ends it."""
    if form != _GNU or extended.form not in (b"", _GNU) or key in extended.told:
        raise UnclearError("it mixes or repeats headers that name one member")
    data = _content(stream, size, "a long name")
    if data.find(b"\0") not in (len(data) - 1, -1) or data == b"\0":
        raise UnclearError("it has a long name with something after its end")
    extended.form = _GNU
    extended.records = {**extended.told, key: _utf8(data.removesuffix(b"\0"), "long name")}


def _pax(stream: Reader, form: bytes, size: int, extended: _Extended) -> None:
    """Read a pax header: records of `length key=value`."""
    if form != _USTAR or extended.form:
        raise UnclearError("it mixes or repeats headers that name one member")
    data, records = _content(stream, size, "a pax header"), dict[str, str]()
    at = 0
    while at < len(data):
        found = _RECORD.match(data, at)
        end = at + int(found[1]) if found else 0
        if not found or not found.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise UnclearError("it has a pax record of a wrong length or shape")
        key, value = _utf8(found[2], "pax key"), data[found.end() : end - 1]
        if key in records:
            raise UnclearError(f"it has two pax records {key!r} for one member")
        if key.startswith(_XATTR):
            extended.attributes[key.removeprefix(_XATTR)] = value
        records[key] = "" if key.startswith(_XATTR) else _record(key, value)
        at = end
    extended.form, extended.records = _USTAR, records


def _record(key: str, value: bytes) -> str:
    """Return the value of a record that readers agree on."""
    text = _utf8(value, f"pax record {key!r}")
    right = (
        (key in _TEXT_KEYS and text and "\0" not in text)
        or (key in _TIME_KEYS and _is_time(text))
        or (key == "size" and _DECIMAL.fullmatch(text))
        or (key in {"uid", "gid"} and _DECIMAL.fullmatch(text) and int(text) < _MOST_ID)
    )
    if not right:
        raise UnclearError(f"it has a pax record {key!r} that readers take differently")
    return text


def _is_time(text: str) -> bool:
    found = _TIME.fullmatch(text)
    return found is not None and abs(int(found[1])) < _MOST_TIME


def _member(block: bytes, form: bytes, flag: bytes, size: int, extended: _Extended) -> Member:
    if flag not in _KINDS:
        raise UnclearError(f"it has {_REFUSED.get(flag, f'a member of the unknown type {flag!r}')}")
    if extended.form not in (b"", form):
        raise UnclearError("it mixes GNU and pax headers")
    kind, told = _KINDS[flag], extended.told
    name = _text(block[:100], "name")
    prefix = _text(block[345:500], "prefix") if form == _USTAR else ""
    target = _text(block[157:257], "link's target")
    _text(block[265:297], "owner's name"), _text(block[297:329], "group's name")
    if not name:
        raise UnclearError("it has a member without a name")
    _check_size(kind, size, told)
    path = told.get("path", f"{prefix}/{name}" if prefix else name)
    target = told.get("linkpath", target)
    if kind not in ("link", "hard link") and target:
        raise UnclearError(f"it has a {kind} that is a link as well")
    if kind == "link" and not 0 < len(target.encode()) < _MOST_TARGET:
        raise UnclearError("it has a link without a target that can be")
    if kind == "device" and not _number(block, 329, 8, "device") and not _number(block, 337, 8, "device"):
        kind = "whiteout device"
    if kind == "hard link":
        target = plain(target, folder=False)
    attributes.check(extended.attributes, kind)
    path = plain(path, folder=kind == "folder")
    usual = kind != "folder" or (not extended.attributes and _is_usual(block, told, path))
    return Member(path, kind, target, int(told.get("size", size)), usual)


def _is_usual(block: bytes, told: dict[str, str], path: str) -> bool:
    """Tell whether a member is root's and of mode 0755; the root may be of 0555, as some bases have it."""
    owner = int(told.get("uid", _number(block, 108, 8, "owner")))
    group = int(told.get("gid", _number(block, 116, 8, "group")))
    mode = _number(block, 100, 8, "mode") & 0o7777
    return owner == group == 0 and (mode == 0o755 or (mode == 0o555 and not path))  # noqa: PLR2004


def _check_size(kind: Kind, size: int, told: dict[str, str]) -> None:
    """Refuse a size of what has no content, and two sizes, one of which some readers pass over."""
    longer = int(told.get("size", size))
    if kind != "file" and (size or longer):
        raise UnclearError(f"it has a {kind} with content")
    if longer != size and (size or longer < _OCTAL_LIMIT):
        raise UnclearError(f"it has a file of {size} and of {longer} bytes")


def plain(path: str, *, folder: bool) -> str:
    """Return a member's path as all readers have it; empty for the root. Raises UnclearError for others."""
    given = path
    if folder:
        path = "" if path in (".", "./") else path.removesuffix("/")
        if not path and given in (".", "./"):
            return ""
    path = path.removeprefix("./")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise UnclearError(f"it has the path {printable(given)}, which is not plainly below the root")
    if len(path.encode()) >= _MOST_PATH or any(len(part.encode()) > _MOST_NAME for part in parts):
        raise UnclearError(f"it has a path longer than a file system takes: {printable(given)}")
    return sys.intern(path)
