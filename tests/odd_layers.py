"""Layers for a differential test: sound ones of every kind, and ones that readers could take differently.

`images` deals them out by a seed, each third one sound. The others do to the weights whatever an engine can
be brought to do, by headers, links, deletions, compression, and what follows the end of a tar; or they are
made at random.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import random
from typing import TYPE_CHECKING, NamedTuple

import zstandard
from odd_sound import ACL, SOUND, XATTR, Make, acl, by_hand
from odd_tars import END, GNU, OLD, block, file, long_name, octal, pax
from runtimes import Blob

from podkiln.oci import spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WEIGHT = b"opt/models/checkpoints/a.safetensors"
EVIL = b"these are other weights than the locked ones"


class Odd(NamedTuple):
    """Some layers to lie on a base image, lowest first, and whether they are known to be right."""

    recipe: str
    sound: bool
    layers: tuple[Blob, ...]


def images(seed: str, count: int) -> Iterator[Odd]:
    """Yield so many, the same for the same seed."""
    unsound, dealt = list(_UNSOUND.items()), 0
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        sound = number % 3 == 0
        if sound:
            recipe, make = chance.choice(SOUND)
        elif number % 15 == 1:
            recipe, make = chance.choice(_UNKNOWN)
        else:
            recipe, make = unsound[dealt % len(unsound)]  # 114 kinds in 200 images: each is among them
            dealt += 1
        yield Odd(recipe, sound, tuple(_stored(each, chance) for each in make(chance)))


def _stored(tar: bytes | Blob, chance: random.Random) -> Blob:
    """Compress a tar in one of the ways of layers."""
    if isinstance(tar, Blob):
        return tar
    how = chance.choice(
        ["tar", "gzip", "gzip with a name", "zstd", "zstd with a checksum", "zstd of no known size"]
    )
    diff_id = spec.digest_of(tar)
    if how == "tar":
        return Blob(spec.LAYER, tar, diff_id)
    if how.startswith("gzip"):
        out = io.BytesIO()
        name = "layer.tar" if "name" in how else ""
        with gzip.GzipFile(name, "wb", chance.randint(1, 9), out, mtime=chance.randint(0, 9)) as packed:
            packed.write(tar)
        return Blob(spec.LAYER_GZIP, out.getvalue(), diff_id)
    packer = zstandard.ZstdCompressor(
        chance.randint(1, 19), write_checksum="checksum" in how, write_content_size="no known" not in how
    )
    return Blob(spec.LAYER_ZSTD, packer.compress(tar), diff_id)


def _one(*parts: bytes, end: bytes = END) -> Make:
    """Return a maker of these members among harmless ones."""

    def make(chance: random.Random) -> list[bytes | Blob]:
        before = [file(b"etc/%d" % n, chance.randbytes(n)) for n in range(chance.randint(0, 3))]
        after = [file(b"srv/%d" % n, chance.randbytes(n)) for n in range(chance.randint(0, 3))]
        return [b"".join([*before, *parts, *after]) + end]

    return make


def _two(lower: bytes, upper: bytes) -> Make:
    return lambda _chance: [lower + END, upper + END]


def _packed(media_type: str, pack: Callable[[bytes], bytes], *, tar: bytes | None = None) -> Make:
    """Return a maker of a blob with the evil file, or `tar`, packed in an odd way."""
    inside = file(WEIGHT, EVIL) + END if tar is None else tar
    return lambda _chance: [Blob(media_type, pack(inside), spec.digest_of(inside))]


def _link(name: bytes, target: bytes) -> bytes:
    return block(name, kind=b"2", target=target)


def _hard(name: bytes, target: bytes) -> bytes:
    return block(name, kind=b"1", target=target)


_HERE = file(WEIGHT, EVIL)
_BASE_256 = b"\x81" + (5).to_bytes(11, "big")
_HARMLESS = file(b"usr/harmless", b"x") + END
_SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
_X = (b"path", b"usr/x")
_W = (b"path", WEIGHT)
_OPAQUE = b"SCHILY.xattr.trusted.overlay.opaque"


def _at_random(chance: random.Random) -> list[bytes | Blob]:
    """Members of any kind under few names, so that they meet: what comes out is for the engines to say."""
    names = [
        b"e",
        b"g",
        b"e/g",
        b"g/e",
        b"e/models",
        b"opt",
        b"opt/e",
        b"opt/modelsx",
        b"opt/modelsx/e",
        b"opt/ComfyUI/g",
    ]
    targets = [*names, b"/opt", b"/opt/models", b"../opt", b"opt/models", b"/e", b"opt/models/checkpoints"]

    def member() -> bytes:
        name = chance.choice(names)
        folder, _, last = name.rpartition(b"/")
        hidden = b"/".join(filter(None, [folder, b".wh." + last]))
        return chance.choice(
            [
                *[file(name, chance.randbytes(chance.choice([0, 9, 600])))] * 3,
                *[block(name + b"/", kind=b"5")] * 3,
                *[_link(name, chance.choice(targets))] * 2,
                *[_hard(name, chance.choice(targets))] * 2,
                file(hidden),
                file(name + b"/.wh..wh..opq"),
                block(name, kind=b"6"),
                file(name + b"/checkpoints/a.safetensors", EVIL),
            ]
        )

    return [
        b"".join(member() for _ in range(chance.randint(1, 4))) + END for _ in range(chance.randint(1, 3))
    ]


def _changed(chance: random.Random) -> list[bytes | Blob]:
    """A sound tar with some bytes of a header changed, and its checksum made right again."""
    tar = bytearray(b"".join(part for part in by_hand(chance) if isinstance(part, bytes)))
    at = 512 * chance.randrange(3)
    for _ in range(chance.randint(1, 3)):
        tar[at + chance.choice([*range(100, 148), *range(156, 512)])] = chance.choice(
            b"\0\x01 05/.xL\x80\xff"
        )
    tar[at + 148 : at + 156] = b" " * 8
    tar[at + 148 : at + 156] = b"%06o\0 " % sum(tar[at : at + 512])
    return [bytes(tar)]


def _late_folders(chance: random.Random) -> list[bytes | Blob]:
    """A link in a lower layer, and in the upper one members below it, in any order."""
    lower = [_link(b"a", b"/opt/models"), _link(b"d/a", b"/opt/models"), file(b"d/x", b"x")]
    upper = [
        *[block(name, kind=b"5") for name in (b"a/", b"d/", b"d/a/")],
        *[file(name) for name in (b"a/.wh.vae", b"d/a/.wh.vae", b"d/.wh..wh..opq", b"a/.wh..wh..opq")],
        file(b"a/" + WEIGHT[11:], EVIL),
        file(b"d/a/" + WEIGHT[11:], EVIL),
    ]
    kept = chance.sample(upper, chance.randint(2, 4))
    return [b"".join(chance.sample(lower, chance.randint(1, 3))) + END, b"".join(kept) + END]


def _named_by_sha512(_chance: random.Random) -> list[bytes | Blob]:
    """A layer whose diff_id is right and that no engine takes: the config tells it, not the layer."""
    return [Blob(spec.LAYER, _HARMLESS, "sha512:" + hashlib.sha512(_HARMLESS).hexdigest())]


def _device(major: int, minor: int, kind: bytes = b"3") -> bytes:
    return block(b"usr/x", kind=kind, patches={329: octal(major, 8), 337: octal(minor, 8)})


def _noted(name: bytes, value: bytes, kind: bytes = b"0", path: bytes = b"usr/x") -> Make:
    return _one(pax((XATTR + name, value)), block(path, kind=kind, target=b"y" if kind == b"2" else b""))


def _told(key: bytes, value: bytes) -> Make:
    return _one(pax((key, value)), file(b"usr/x", b"x"))


_A_LINK = _link(b"a", b"/opt/models")
_THROUGH = file(b"a/" + WEIGHT[11:], EVIL)

_UNSOUND: dict[str, Make] = {
    "a folder after what is in it": _two(_A_LINK, _THROUGH + file(b"a/.wh.vae") + block(b"a/", kind=b"5")),
    "a folder after a deletion in it": _two(_A_LINK, file(b"a/.wh.vae") + block(b"a/", kind=b"5")),
    "a folder after a deletion of all": _two(_A_LINK, file(b"a/.wh..wh..opq") + block(b"a/", kind=b"5")),
    "a deletion after what went through a link": _two(
        _link(b"d/a", b"/opt/models"), file(b"d/a/" + WEIGHT[11:], EVIL) + file(b"d/.wh..wh..opq")
    ),
    "a device that is cut to a deletion": _two(file(b"usr/x", b"x"), _device(4096, 0)),
    "a device that is cut by its minor": _two(file(b"usr/x", b"x"), _device(0, 1 << 20)),
    "a block device that is cut": _one(_device(4096, 0, b"4")),
    "a device beyond 32 bits": _one(
        block(b"usr/x", kind=b"3", magic=GNU, patches={329: b"\x80\0\0\1\0\0\0\0"})
    ),
    "the folder of another mode": _one(block(b"opt/models/", kind=b"5", patches={100: octal(0, 8)})),
    "the folder of another owner": _one(block(b"opt/models/", kind=b"5", patches={108: octal(9, 8)})),
    "the parent of another owner": _one(pax((b"uid", b"9")), block(b"opt/", kind=b"5")),
    "the root of another mode": _one(block(b"./", kind=b"5", patches={100: octal(0, 8)})),
    "the folder with an access list": _noted(b"system.posix_acl_default", ACL, b"5", b"opt/models/"),
    "a time beyond 64 bits": _told(b"mtime", b"9999999999999999999"),
    "an owner beyond 64 bits": _told(b"uid", b"9999999999999999999"),
    "an owner that means no change": _told(b"uid", b"4294967295"),
    "a group beyond 32 bits": _told(b"gid", b"4294968296"),
    "an attribute that is too long": _noted(b"user.x", b"z" * 70000),
    "an attribute of a link": _noted(b"user.x", b"z", b"2"),
    "a capability that is none": _noted(b"security.capability", b"zz"),
    "an access list that is none": _noted(b"system.posix_acl_access", b"zz"),
    "an access list out of order": _noted(b"system.posix_acl_access", acl((4, 5), (1, 7), (32, 5))),
    "a path of all that the kernel takes": _one(
        pax((b"path", b"/".join([b"d" * 200] * 20) + b"/x")), file(b"x", b"x")
    ),
    "other weights": _one(_HERE),
    "a hard link to a link": _one(
        _link(b"e", b"/opt"), _hard(b"g", b"e"), file(b"g/models/" + WEIGHT[11:], EVIL)
    ),
    "a link": _one(_link(b"e", b"/opt"), file(b"e/models/" + WEIGHT[11:], EVIL)),
    "a link of links": _one(_link(b"a", b"b"), _link(b"b", b"opt/models"), file(b"a/" + WEIGHT[11:], EVIL)),
    "a link in a lower layer": _two(_link(b"e", b"/opt"), file(b"e/models/" + WEIGHT[11:], EVIL)),
    "a link and a deletion": _one(_link(b"e", b"/opt/models"), file(b"e/.wh.checkpoints")),
    "a link and a deletion of all": _one(_link(b"e", b"/opt/models"), file(b"e/.wh..wh..opq")),
    "a link in the folder's place": _one(_link(b"opt/models", b"/srv"), file(b"srv/" + WEIGHT[11:], EVIL)),
    "a hard link in the file's place": _one(file(b"usr/x", EVIL), _hard(WEIGHT, b"usr/x")),
    "a hard link to the weights": _one(_hard(b"usr/x", WEIGHT)),
    "a hard link forward": _one(_hard(b"usr/x", b"usr/y"), file(b"usr/y", b"y")),
    "a hard link into a lower layer": _two(file(b"usr/y", b"y"), _hard(b"usr/x", b"usr/y")),
    "a GNU time for a prefix": _one(file(WEIGHT, EVIL, magic=GNU, patches={345: octal(1, 12)})),
    "a GNU prefix": _one(file(WEIGHT[23:], EVIL, magic=GNU, prefix=WEIGHT[:22])),
    "an old header with a prefix": _one(file(WEIGHT, EVIL, magic=OLD, prefix=b"usr")),
    "a star header": _one(file(WEIGHT, EVIL, prefix=b"", patches={476: octal(1, 12), 508: b"tar\0"})),
    "a number that ends some readers": _one(block(b"usr/x", patches={136: _BASE_256}), _HERE),
    "a number of another form": _one(block(b"usr/x", patches={108: b"-000001\0"}), _HERE),
    "a signed checksum": _one(block("usr/é".encode(), signed=True), _HERE),
    "one block of zeros": _one(bytes(512), _HERE),
    "after the end": _one(end=END + _HERE + END),
    "junk after the end": _one(end=END + b"junk"),
    "no end": _one(file(b"usr/x", b"x"), end=b""),
    "half an end": _one(file(b"usr/x", b"x"), end=bytes(512)),
    "cut short": _one(end=file(b"usr/x", bytes(2000))[:1500]),
    "a pax path": _one(pax(_W), file(b"usr/x", EVIL)),
    "two pax paths": _one(pax(_X, _W), file(b"usr/x", EVIL)),
    "two pax headers": _one(pax(_W), pax(_X), file(b"usr/y", EVIL)),
    "a global pax path": _one(pax(_X, kind=b"g"), _HERE),
    "a global header in the folder's place": _one(block(b"opt/models", kind=b"g")),
    "a sparse name": _one(pax(_W, (b"GNU.sparse.name", b"usr/x")), file(b"usr/y", EVIL)),
    "a pax path, then a GNU name": _one(pax(_X), long_name(WEIGHT), file(b"usr/y", EVIL, magic=GNU)),
    "a GNU name, then a pax path": _one(long_name(b"usr/x"), pax(_W), file(b"usr/y", EVIL)),
    "two GNU names": _one(long_name(WEIGHT), long_name(b"usr/x"), file(b"usr/y", EVIL, magic=GNU)),
    "a GNU name with an end inside": _one(long_name(WEIGHT + b"\0usr/x"), file(b"usr/y", EVIL, magic=GNU)),
    "a name with an end inside": _one(file(WEIGHT + b"\0x", EVIL)),
    "a pax size of nothing": _one(pax((b"size", b"0")), file(b"usr/x", _HERE[:512])),
    "a pax size that hides a header": _one(pax((b"size", b"%d" % len(_HERE))), block(b"usr/x"), _HERE),
    "a charset": _one(pax((b"hdrcharset", b"BINARY"), _W), file(b"usr/x", EVIL)),
    "a wrong length of a record": _one(file(b"x", b"99 path=usr/x\n", kind=b"x"), _HERE),
    "an empty record": _one(pax((b"path", b"")), _HERE),
    "a pax path with an end inside": _one(pax((b"path", WEIGHT + b"\0x")), file(b"usr/x", EVIL)),
    "an opaque folder by attribute": _one(pax((_OPAQUE, b"y")), block(b"opt/models/", kind=b"5")),
    "an opaque parent by attribute": _one(pax((_OPAQUE, b"y")), block(b"opt/", kind=b"5")),
    "a redirected folder": _one(
        pax((b"SCHILY.xattr.trusted.overlay.redirect", b"/srv")), block(b"opt/models/", kind=b"5")
    ),
    "a device that deletes": _one(block(WEIGHT, kind=b"3", patches={329: octal(0, 8), 337: octal(0, 8)})),
    "a pipe in the file's place": _one(block(WEIGHT, kind=b"6")),
    "a folder in the file's place": _one(block(WEIGHT + b"/", kind=b"5")),
    "a file with a slash": _one(file(WEIGHT + b"/", EVIL)),
    "an old file": _one(file(WEIGHT, EVIL, kind=b"\0")),
    "a contiguous file": _one(file(WEIGHT, EVIL, kind=b"7")),
    "a sparse file": _one(file(WEIGHT, EVIL, kind=b"S", magic=GNU, patches={483: octal(len(EVIL), 12)})),
    "an unknown kind": _one(file(b"usr/x", b"x", kind=b"Q")),
    "a deletion": _one(file(b"opt/models/checkpoints/.wh.a.safetensors")),
    "a deletion of all": _one(file(b"opt/models/.wh..wh..opq")),
    "a deletion of a parent": _one(file(b".wh.opt")),
    "a deletion by a folder": _one(block(b"opt/.wh.models/", kind=b"5")),
    "a deletion by a link": _one(_link(b"opt/.wh.models", b"x")),
    "a deletion of the folder above": _one(file(b"opt/models/.wh...")),
    "a deletion of nothing": _one(file(b"opt/modelsx/.wh.")),
    "a deletion and a file": _one(file(b"usr/.wh.x"), file(b"usr/x", b"x")),
    "an absolute path": _one(file(b"/" + WEIGHT, EVIL)),
    "a path up and down": _one(file(b"usr/../" + WEIGHT, EVIL)),
    "a path above the root": _one(file(b"../" + WEIGHT, EVIL)),
    "a path with an empty part": _one(file(WEIGHT.replace(b"/", b"//"), EVIL)),
    "a path twice": _one(file(b"usr/x", b"1"), file(b"usr/x", b"2")),
    "a path that is no UTF-8": _one(file(b"usr/\xe9", b"x")),
    "a file below a file": _one(file(b"usr/x", b"x"), file(b"usr/x/y", b"y")),
    "a name like something compressed": lambda _chance: [file(b"BZh91AY", b"x") + END],
    "gzip with junk": _packed(spec.LAYER_GZIP, lambda tar: gzip.compress(tar) + b"junk", tar=_HARMLESS),
    "two gzip members": _packed(
        spec.LAYER_GZIP, lambda tar: gzip.compress(tar[:512]) + gzip.compress(tar[512:])
    ),
    "two zstd frames": _packed(
        spec.LAYER_ZSTD, lambda tar: zstandard.compress(tar[:512]) + zstandard.compress(tar[512:])
    ),
    "a skipped zstd frame": _packed(spec.LAYER_ZSTD, lambda tar: _SKIPPABLE + zstandard.compress(tar)),
    "a skipped zstd frame behind": _packed(spec.LAYER_ZSTD, lambda tar: zstandard.compress(tar) + _SKIPPABLE),
    "gzip called tar": _packed(spec.LAYER, gzip.compress),
    "zstd called gzip": _packed(spec.LAYER_GZIP, zstandard.compress),
    "gzip called zstd": _packed(spec.LAYER_ZSTD, gzip.compress),
    "tar called gzip": _packed(spec.LAYER_GZIP, bytes),
    "gzip twice": _packed(spec.LAYER_GZIP, lambda tar: gzip.compress(gzip.compress(tar))),
    "another diff_id": lambda _chance: [
        Blob(spec.LAYER_GZIP, gzip.compress(_HARMLESS), spec.digest_of(_HERE))
    ],
}

# Not known beforehand: whatever of these `verify` takes for right, engines must unpack to the locked files.
_UNKNOWN: list[tuple[str, Make]] = [
    ("members at random", _at_random),
    ("members at random", _at_random),
    ("a changed header", _changed),
    ("members below a link in any order", _late_folders),
    ("a diff_id of sha512", _named_by_sha512),
]
RECIPES = {name for name, _ in (*SOUND, *_UNKNOWN)} | set(_UNSOUND)
DECEPTIVE = list(_UNSOUND)


def deceptive(recipe: str, chance: random.Random) -> tuple[Blob, ...]:
    """Return layers of a recipe that is known to be unsound."""
    return tuple(_stored(each, chance) for each in _UNSOUND[recipe](chance))
