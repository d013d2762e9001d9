"""Extended attributes of a layer's members: those that every engine can set, and that change no files.

A value that the kernel refuses ends the unpacking of an engine, so it is an UnclearError here. Attributes of
overlayfs (trusted.overlay.*) hide files, and no others are written by the makers of layers.

Sources: Linux security/commoncap.c (cap_convert_nscap), fs/posix_acl.c (posix_acl_valid),
include/uapi/linux/limits.h, fs/xattr.c (user.* only on files and folders), fs/ext4/xattr.h.
"""

from __future__ import annotations

import re
from struct import iter_unpack
from typing import TYPE_CHECKING, Final

from podkiln.verify.unpack import UnclearError

if TYPE_CHECKING:
    from collections.abc import Mapping

_KNOWN: Final = re.compile(
    r"security\.(?:capability|selinux)|user\.(?!overlay\.)[\w.:-]+|system\.posix_acl_(?:access|default)"
)
_MOST_NAME: Final = 255  # bytes, XATTR_NAME_MAX
_MOST_BYTES: Final = 3 << 10  # of one member, as ext4 keeps them: in one block of 4 KiB with what it adds
_ENTRY: Final = 16  # bytes before each name in such a block (ext4_xattr_entry)
_CAPABILITIES: Final = {
    (20, b"\2"),
    (24, b"\3"),
}  # bytes and revision, of which the kernel still sets these two
_ACL_TAGS: Final = {1: "U", 2: "u", 4: "G", 8: "g", 16: "M", 32: "O"}
_ACL_NAMED: Final = (2, 8)  # the tags whose id counts
_NOBODY: Final = (1 << 32) - 1  # an id that is none
_ACL: Final = re.compile(r"U(?:GM?|u+Gg*M|Gg+M)O")
_ACL_VERSION: Final = b"\x02\0\0\0"
_MOST_RIGHTS: Final = 7


def check(attributes: Mapping[str, bytes], kind: str) -> None:
    """Refuse attributes that a member of this kind (archive.Kind) cannot have. Raises UnclearError."""
    total = sum(
        _ENTRY + _padded(len(name.encode())) + _padded(len(value)) for name, value in attributes.items()
    )
    if total > _MOST_BYTES:
        raise UnclearError(f"it has a {kind} with {total} bytes of extended attributes: too many to be set")
    for name, value in attributes.items():
        if not _KNOWN.fullmatch(name) or len(name.encode()) > _MOST_NAME:
            raise UnclearError(f"it has the extended attribute {name[:160]!r}")
        if not _can_be_set(name, value, kind):
            raise UnclearError(f"it has a {kind} with a value of {name[:160]} that no kernel takes")


def _padded(size: int) -> int:
    """Return what a name or a value of so many bytes takes in a block of ext4."""
    return size + -size % 4


def _can_be_set(name: str, value: bytes, kind: str) -> bool:
    if name == "security.capability":
        return _is_capability(value) and kind in ("file", "hard link")
    if name.startswith("system."):
        return kind in _acl_kinds(name) and _is_acl(value)
    if name.startswith("user."):
        return kind in ("file", "hard link", "folder")
    return bool(value)


def _is_capability(value: bytes) -> bool:
    """Tell whether a value is a set of capabilities: flags, revision, the sets, of revision 3 a user's id."""
    if (len(value), value[3:4]) not in _CAPABILITIES or value[:3] not in (b"\0\0\0", b"\1\0\0"):
        return False
    return int.from_bytes(value[20:], "little") != _NOBODY


def _acl_kinds(name: str) -> tuple[str, ...]:
    return ("folder",) if name.endswith("default") else ("file", "hard link", "folder")


def _is_acl(value: bytes) -> bool:
    """Tell whether a value is an access list: its version, then entries of tag, rights and id, in order."""
    if value[:4] != _ACL_VERSION or len(value) % 8 != 4:  # noqa: PLR2004 - a header of 4 bytes, entries of 8
        return False
    entries = list(iter_unpack("<HHI", value[4:]))
    tags = "".join(_ACL_TAGS.get(tag, "?") for tag, _, _ in entries)
    return bool(_ACL.fullmatch(tags)) and all(
        rights <= _MOST_RIGHTS and not (tag in _ACL_NAMED and number == _NOBODY)
        for tag, rights, number in entries
    )
