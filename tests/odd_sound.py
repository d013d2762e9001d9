"""Sound layers of every kind that writers of layers make, for the differential test of odd_layers."""

from __future__ import annotations

import io
import random
import struct
import tarfile
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from odd_tars import END, GNU, block, file, long_name, octal, pax

if TYPE_CHECKING:
    from runtimes import Blob

_CAPABILITY = b"\x01\0\0\x02" + b"\0\x04\0\0" + bytes(12)  # cap_net_bind_service, VFS_CAP_REVISION_2
Make: TypeAlias = Callable[[random.Random], "list[bytes | Blob]"]


def _name(chance: random.Random) -> str:
    """Return a path that has nothing to do with the weights."""
    folders = [
        "usr/share/doc",
        "usr/lib/python3",
        "opt/ComfyUI/custom_nodes",
        "etc",
        "opt/modelsx",
        "var/lib",
    ]
    name = "".join(chance.choice("abcdefgh-_.+~ éß字") for _ in range(chance.choice([3, 8, 40]))).strip(". ")
    deep = "/".join(["folder"] * chance.choice([0, 0, 1, 20]))
    return "/".join(filter(None, [chance.choice(folders), deep, f"x{name}{chance.randrange(10**6)}"]))


def _written(form: int) -> Callable[[random.Random], list[bytes | Blob]]:
    """Return a maker of layers as Python's tarfile writes them."""

    def make(chance: random.Random) -> list[bytes | Blob]:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8") as tar:
            for folder in ("opt", "opt/models")[: chance.randint(0, 2)]:
                _add(tar, folder, tarfile.DIRTYPE)
            for _ in range(chance.randint(1, 8)):
                name, data = _name(chance), chance.randbytes(chance.choice([0, 1, 511, 512, 513, 3000]))
                if form == tarfile.USTAR_FORMAT:
                    name = _short(name)
                _add(
                    tar,
                    name,
                    tarfile.REGTYPE,
                    data=data,
                    xattrs=form == tarfile.PAX_FORMAT and chance.random() < 0.5,
                )
                if chance.random() < 0.5:
                    _add(
                        tar,
                        f"{_short(name)}.hard",
                        tarfile.LNKTYPE,
                        target=_short(name) if name == _short(name) else "",
                    )
                if chance.random() < 0.5:
                    _add(
                        tar,
                        f"{_short(name)}.soft",
                        tarfile.SYMTYPE,
                        target=chance.choice(["../x", "/opt/models", "x" * 90]),
                    )
            if chance.random() < 0.3:
                _add(tar, "run/pipe", tarfile.FIFOTYPE)
                _add(tar, "run/null", tarfile.CHRTYPE)
        return [out.getvalue() + bytes(chance.choice([0, 512, 10240, 7]))]

    return make


def _short(name: str) -> str:
    return name if len(name.encode()) <= 90 else f"usr/{name[-20:].replace('/', '-')}"


def _add(
    tar: tarfile.TarFile, name: str, kind: bytes, *, data: bytes = b"", target: str = "", xattrs: bool = False
) -> None:
    if kind == tarfile.LNKTYPE and not target:
        return
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), target
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = 1_700_000_000
    if kind == tarfile.CHRTYPE:
        info.devmajor, info.devminor = 1, 3
    if xattrs:
        info.mtime = 1_700_000_000.25
        value = _CAPABILITY.decode("utf-8", "surrogateescape")
        info.pax_headers = {"SCHILY.xattr.security.capability": value, "SCHILY.xattr.user.why": "a test"}
    tar.addfile(info, io.BytesIO(data))


def by_hand(chance: random.Random) -> list[bytes | Blob]:
    """Long names in each of the three ways, names that begin with ./, numbers in base 256."""
    long = b"usr/share/" + b"y" * 80 + b"/" + b"z" * chance.randint(30, 90)
    number = b"\x80" + (1_700_000_000).to_bytes(11, "big")
    parts = [
        block(b"./", kind=b"5"),
        block(b"./usr/", kind=b"5"),
        file(b"./usr/first", b"1"),
        file(long.rpartition(b"/")[2], b"2", prefix=long.rpartition(b"/")[0]),
        long_name(long + b"gnu") + file(long[:99], b"3", magic=GNU),
        long_name(b"../" * 50, b"K") + block(b"usr/far", kind=b"2", target=b"../", magic=GNU),
        file(b"usr/when", b"4", magic=GNU, patches={136: number, 345: octal(1, 12), 357: octal(2, 12)}),
        pax((b"path", long + b"pax"), (b"mtime", b"1700000000.5")) + file(b"short", b"5"),
        pax((b"size", b"1")) + file(b"usr/sized", b"6"),
        pax((b"linkpath", b"usr/first")) + block(b"usr/hard", kind=b"1", target=b"elsewhere"),
    ]
    kept = parts[:3] + chance.sample(parts[3:], chance.randint(1, len(parts) - 3))
    return [b"".join(kept) + END + bytes(chance.choice([0, 9216]))]


def _changes(chance: random.Random) -> list[bytes | Blob]:
    """Layers that replace and delete what lies in others, but no weights."""
    lower = (
        block(b"usr/m", kind=b"2", target=b"/opt/models") + file(b"usr/old/a", b"a") + file(b"usr/b", b"b")
    )
    uppers = [
        block(b"usr/", kind=b"5") + block(b"usr/m/", kind=b"5") + file(b"usr/m/checkpoints/a", b"harmless"),
        file(b"usr/.wh.m"),
        block(b"usr/old/", kind=b"5") + file(b"usr/old/.wh..wh..opq") + file(b"usr/old/c", b"c"),
        file(b"usr/old", b"a file now"),
        block(b"usr/b/", kind=b"5") + file(b"usr/b/d", b"a folder now"),
        file(b"usr/.wh.old") + file(b"usr/.wh.b") + file(b"opt/.wh.old"),
        block(b"usr/m", kind=b"2", target=b"/opt"),
    ]
    return [tar + END for tar in (lower, *chance.sample(uppers, chance.randint(1, 2)))]


def acl(*rows: tuple[int, int] | tuple[int, int, int]) -> bytes:
    """Return the value of an access list: tags, rights and ids, in the form of system.posix_acl_access."""
    whole = ((*row, 2**32 - 1)[:3] for row in rows)
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in whole)


ACL = acl((1, 7), (4, 5), (32, 5))
ACL_NAMED = acl((1, 7), (2, 7, 5), (2, 5, 2**32 - 2), (4, 5), (8, 5, 0), (16, 7), (32, 5))
XATTR = b"SCHILY.xattr."


def _limits(chance: random.Random) -> list[bytes | Blob]:
    """Members with the largest and smallest of all that is taken."""
    early, late = (n.to_bytes(12, "big", signed=True) for n in (-(10**9), 10**10))
    deep = b"usr/" + b"/".join([b"d" * 200] * 15)
    parts = [
        file(b"usr/early", b"1", magic=GNU, patches={136: early}),
        file(b"usr/late", b"2", magic=GNU, patches={136: b"\x80" + late[1:]}),
        pax((b"mtime", b"-1.5"), (b"atime", b"9999999999")) + file(b"usr/times", b"3"),
        pax((b"uid", b"4294967294"), (b"gid", b"4294967294")) + file(b"usr/owned", b"4"),
        block(b"usr/c", kind=b"3", patches={329: octal(4095, 8), 337: octal((1 << 20) - 1, 8)}),
        block(b"usr/b", kind=b"4", patches={329: octal(4095, 8), 337: octal(0, 8)}),
        pax((b"path", deep)) + file(b"x", b"5"),
        pax((b"linkpath", b"t/" * 500)) + block(b"usr/l", kind=b"2", target=b"t"),
        pax((XATTR + b"security.capability", b"\0\0\0\x03" + bytes(20))) + file(b"usr/cap", b"6"),
        pax(*((XATTR + b"user.%03d" % n, b"") for n in range(128))) + file(b"usr/many", b"6"),
        pax((XATTR + b"security.selinux", b"system_u:object_r:usr_t:s0\0")) + file(b"usr/label", b"6"),
        pax((XATTR + b"system.posix_acl_access", ACL)) + file(b"usr/acl", b"7"),
        pax((XATTR + b"system.posix_acl_access", ACL_NAMED)) + file(b"usr/aclnamed", b"7"),
        pax((XATTR + b"system.posix_acl_default", ACL)) + block(b"usr/acls/", kind=b"5"),
        pax((XATTR + b"user.x", b"z" * 2900)) + block(b"usr/noted/", kind=b"5"),
        block(b"./", kind=b"5", patches={100: octal(chance.choice([0o755, 0o555]), 8)}),
    ]
    chance.shuffle(parts)
    return [b"".join(parts) + END]


SOUND: list[tuple[str, Make]] = [
    ("the largest and the smallest", _limits),
    ("as Python writes ustar", _written(tarfile.USTAR_FORMAT)),
    ("as Python writes GNU", _written(tarfile.GNU_FORMAT)),
    ("as Python writes pax", _written(tarfile.PAX_FORMAT)),
    ("by hand", by_hand),
    ("changes of lower layers", _changes),
    ("nothing", lambda _chance: [END]),
]
