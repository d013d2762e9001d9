"""Layers of a runtime are read for whatever would hide weights or add to them."""

from __future__ import annotations

import gzip
import io
import random
import re
import tarfile
from typing import TYPE_CHECKING

import odd_layers
import odd_tars
import pytest
import zstandard
from odd_sound import ACL, acl

from podkiln.errors import IntegrityError
from podkiln.oci import spec
from podkiln.oci.spec import Descriptor
from podkiln.verify import runtime_layers
from podkiln.verify.archive import Member

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runtimes import Blob

    from podkiln.verify.archive import Kind


def tar(*names: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as written:
        for name in names:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else kind
            info.mode = 0o755 if info.isdir() else 0o644
            info.linkname = "elsewhere" if info.issym() else ""
            written.addfile(info)
    return out.getvalue()


def read(number: int, blob: Descriptor, diff_id: spec.Digest, chunks: Iterable[bytes]) -> list[str]:
    return list(runtime_layers.findings([runtime_layers.read(number, blob, diff_id, chunks)]))


def findings(data: bytes, kind: str = spec.LAYER_ZSTD, *, packed: bytes | None = None) -> list[str]:
    packs = {
        spec.LAYER_ZSTD: zstandard.compress(data),
        spec.LAYER_GZIP: gzip.compress(data),
        spec.LAYER: data,
    }
    blob = packs[kind] if packed is None else packed
    descriptor = Descriptor(kind, spec.digest_of(blob), len(blob))
    chunks = [blob[at : at + 1000] for at in range(0, len(blob), 1000)]
    return read(3, descriptor, spec.digest_of(data), chunks)


@pytest.mark.parametrize("kind", [spec.LAYER, spec.LAYER_GZIP, spec.LAYER_ZSTD])
def test_a_layer_that_leaves_the_weights_alone_is_right(kind: str) -> None:
    assert (
        findings(tar("opt/", "opt/models/", "opt/ComfyUI/main.py", "opt/.wh.old", "opt/modelsx/a"), kind)
        == []
    )


@pytest.mark.parametrize(
    "name",
    [
        "opt/models/vae/a.safetensors",
        "./opt/models/a",
        "opt/models/vae/",
        "opt/models",  # a file or a link in the folder's place
        "opt",
        "opt/.wh.models",
        ".wh.opt",
        "opt/models/.wh.vae",
        "opt/models/vae/.wh.a.safetensors",
        ".wh..wh..opq",
        "opt/.wh..wh..opq",
        "opt/models/.wh..wh..opq",
        "opt/models/vae/.wh..wh..opq",
    ],
)
def test_what_hides_weights_or_adds_to_them_is_found(name: str) -> None:
    (found,) = findings(tar("usr/share/doc", name))
    assert name.rstrip("/").removeprefix("./") in found
    assert found.startswith("Layer 3 (sha256:")
    assert found.endswith("a runtime leaves /opt/models to the weights.")


@pytest.mark.parametrize(
    "name", ["/opt/models/a", "//opt/models/a", "usr/../opt/models/a", "../opt/models/a"]
)
def test_a_path_that_readers_clean_up_is_found(name: str) -> None:
    (found,) = findings(tar("usr/share/doc", name))
    assert f"cannot be read in one way only: it has the path {name}, which is not plainly below" in found


def test_a_link_in_the_place_of_the_folder_is_found() -> None:
    (found,) = findings(tar("opt/models", kind=tarfile.SYMTYPE))
    assert "holds opt/models:" in found


def test_a_tar_that_the_config_does_not_name_is_found() -> None:
    data = tar("a")
    blob = zstandard.compress(data)
    descriptor = Descriptor(spec.LAYER_ZSTD, spec.digest_of(blob), len(blob))
    wanted = spec.digest_of(b"another")
    (found,) = read(0, descriptor, wanted, [blob])
    assert found.endswith(f"holds a tar of {spec.digest_of(data)}; the config says {wanted}.")


@pytest.mark.parametrize(
    ("kind", "packed"),
    [
        (spec.LAYER_ZSTD, b"no zstd at all"),
        (spec.LAYER_GZIP, b"no gzip at all"),
        (spec.LAYER_GZIP, gzip.compress(tar("a"), mtime=0)[:40]),
        (spec.LAYER, b"no tar at all" * 100),
    ],
    ids=["zstd", "gzip", "half a gzip", "tar"],  # gzip writes the time, and workers must agree on names
)
def test_a_layer_that_is_no_archive_is_a_finding_not_a_crash(kind: str, packed: bytes) -> None:
    (found,) = findings(tar("a"), kind, packed=packed)
    assert "cannot be read" in found


def test_a_blob_that_its_registry_has_changed_is_a_finding() -> None:
    def chunks() -> Iterator[bytes]:
        yield zstandard.compress(tar("a"))
        raise IntegrityError("it has another digest")

    blob = Descriptor(spec.LAYER_ZSTD, spec.digest_of(b"x"), 1)
    (found,) = read(1, blob, spec.digest_of(tar("a")), chunks())
    assert found.endswith("it has another digest")


def entry(name: str, target: str | None = None, kind: Kind = "link") -> Member:
    """A folder where the name ends with a slash, a link where there is a target, else a file."""
    if target is not None:
        return Member(name, kind, target)
    return Member(name.rstrip("/"), "folder" if name.endswith("/") else "file")


def found_in(*layers: list[Member]) -> list[str]:
    return list(
        runtime_layers.findings(
            runtime_layers.LayerContents(f"Layer {n}", (), tuple(r)) for n, r in enumerate(layers)
        )
    )


@pytest.mark.parametrize(
    ("links", "name"),
    [
        ({"m": "/opt/models"}, "m/checkpoints/a"),
        ({"m": "opt/models"}, "m/a"),
        ({"usr/m": "../opt"}, "usr/m/models/a"),
        ({"usr/m": "../../../opt/models"}, "usr/m/a"),  # engines stay below the root
        ({"a": "b", "b": "/opt/models"}, "a/x"),
        ({"m": "/opt"}, "m/models"),
        ({"m": "/opt/models"}, "m/.wh.vae"),
        ({"m": "/opt/models"}, "m/.wh..wh..opq"),
        ({"m": "/"}, "m/m/opt/models/a"),
        ({"lib": "usr/lib"}, "lib/x.so"),  # overlayfs puts a folder in the link's place, others follow it
        ({"a": "b", "b": "a"}, "a/x"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_what_lies_below_a_link_is_found(links: dict[str, str], name: str, apart: bool) -> None:
    """Be the link in the same layer, or in one below."""
    made = [entry(each, target) for each, target in links.items()]
    (found,) = found_in(made, [entry(name)]) if apart else found_in([*made, entry(name)])
    assert found.startswith(
        f"Layer {int(apart)} holds {name.rpartition('/')[0] if '.wh.' in name and apart else name}"
    )
    assert found.endswith("engines unpack that differently.")


def test_a_hard_link_to_a_link_does_not_lead_to_the_weights_unseen() -> None:
    """The engine's files below g would be at /opt/models."""
    rows = [
        entry("e", "/opt"),
        entry("g", "e", "hard link"),
        entry("g/models/checkpoints/a.safetensors"),
    ]
    (found,) = found_in(rows)
    assert found.startswith(
        "Layer 0 holds g/models/checkpoints/a.safetensors below something that is not one of its folders"
    )


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([entry("a"), entry("a")], "holds a twice"),
        ([entry("a/"), entry("a")], "holds a twice"),
        ([entry("a"), entry("a/")], "holds a twice"),
        ([entry("a/b"), entry("a")], "holds a twice"),
        ([entry("a"), entry("a/b")], "holds a/b below something that is not one of its folders"),
        ([entry("m", "/opt"), entry("m", "/srv")], "holds m twice"),
        (
            [entry("h", "a", "hard link"), entry("a")],
            "holds h as a hard link to a, which is not an earlier file of this layer",
        ),
        ([entry("a/"), entry("h", "a", "hard link")], "holds h as a hard link to a"),
        ([entry("h", "opt/models/vae/x", "hard link")], "holds h as a hard link to opt/models/vae/x"),
        ([entry("a"), entry(".wh.a")], "both holds and deletes a"),
        ([entry(".wh.a"), entry("a/b")], "both holds and deletes a"),
        ([entry(".wh.a"), entry(".wh.a")], "holds .wh.a as a whiteout of an invalid name, or a second"),
        ([entry("a/.wh.")], "as a whiteout of an invalid name"),
        ([entry("a/.wh...")], "as a whiteout of an invalid name"),
        ([entry("a/.wh..")], "as a whiteout of an invalid name"),
        ([entry("a/.wh..wh.plnk")], "as a whiteout of an invalid name"),
        ([entry("a/.wh.b/c")], "below a whiteout"),
        ([entry("a/.wh.b/")], "as a whiteout that is not an empty file"),
        ([entry("a/.wh.b", "c")], "as a whiteout that is not an empty file"),
        ([Member(".wh.a", "file", size=1)], "as a whiteout that is not an empty file"),
        ([Member("a", "whiteout device")], "as a whiteout device"),
    ],
)
def test_what_engines_unpack_in_different_ways_is_found(rows: list[Member], wanted: str) -> None:
    (found,) = found_in(rows)
    assert wanted in found
    assert found.endswith("engines unpack that differently.")


@pytest.mark.parametrize(
    "layers",
    [
        [[entry("usr/lib/"), entry("lib", "usr/lib"), entry("usr/lib/x.so")]],
        [[entry("lib", "usr/lib")], [entry("lib", "elsewhere")]],
        [[entry("m", "/srv")], [entry("m/"), entry("m/a")]],  # a folder took its place
        [[entry("m", "/srv")], [entry(".wh.m")], [entry("m/a")]],
        [[entry("d/m", "/srv")], [entry("d/.wh..wh..opq")], [entry("d/m/a")]],
        [[entry("a"), entry("b", "a", "hard link"), entry("c", "b", "hard link")]],
        [[entry("a/"), entry("a/"), entry("a/b")]],
        [[entry("a", "/opt"), entry("b", "a", "hard link")]],
        [[Member("dev/null", "device"), Member("run/pipe", "fifo"), Member("", "folder")]],
        [[entry("a")], [entry(".wh.a")], [entry("a")]],
    ],
)
def test_links_folders_and_deletions_that_lead_elsewhere_are_right(layers: list[list[Member]]) -> None:
    assert found_in(*layers) == []


@pytest.mark.parametrize(
    "rows",
    [
        [entry("a/checkpoints/x"), entry("a/")],
        [entry("a/.wh.vae"), entry("a/")],
        [entry("a/.wh..wh..opq"), entry("a/")],
        [entry("a/vae/x/y"), entry("a/"), entry("a/b")],
    ],
)
@pytest.mark.parametrize("lower", [entry("a", "/opt/models"), entry("a")])
def test_a_folder_after_something_in_it_does_not_hide_a_link_below(rows: list[Member], lower: Member) -> None:
    """Engines that unpack onto the layers below have followed the link by then."""
    (found,) = found_in([lower], rows)
    assert re.search(r"Layer 1 holds a/.* before its folder, and a is a (file|link) in a layer below", found)
    assert found_in([entry("a/x")], rows) == []
    assert found_in(rows) == []
    first = [entry("a/"), *rows]
    assert found_in([lower], first) == []


def test_a_deletion_of_all_after_something_in_the_folder_is_found() -> None:
    """What came before it went through the link that it deletes."""
    lower = [entry("d/m", "/opt/models")]
    for rows in ([entry("d/m/a")], [entry("d/"), entry("d/m/a")], [entry("d/m/"), entry("d/m/a")]):
        (found,) = found_in(lower, [*rows, entry("d/.wh..wh..opq")])
        assert "Layer 1 holds d/.wh..wh..opq after something else in that folder" in found
    assert found_in(lower, [entry("d/"), entry("d/.wh..wh..opq"), entry("d/m/a")]) == []
    assert found_in([entry("e")], [entry("d/a"), entry("d/.wh..wh..opq")]) == []


def read_tar(*members: bytes) -> list[str]:
    return findings(b"".join(members) + odd_tars.END, spec.LAYER)


V2 = b"\x01\0\0\x02" + bytes(16)


@pytest.mark.parametrize(
    "member",
    [
        *[
            odd_tars.block(b"x", kind=kind, patches={329: odd_tars.octal(a, 8), 337: odd_tars.octal(b, 8)})
            for kind in (b"3", b"4")
            for a, b in ((4096, 0), (0, 1 << 20), (4096, 1 << 20))
        ],
        *[
            odd_tars.block(
                b"x", kind=b"3", magic=odd_tars.GNU, patches={at: b"\x80" + bytes(2) + b"\1" + bytes(4)}
            )
            for at in (329, 337)
        ],
        odd_tars.block(b"x", magic=odd_tars.GNU, patches={108: b"\x80" + (2**32 - 1).to_bytes(7, "big")}),
        odd_tars.block(b"x", magic=odd_tars.GNU, patches={100: b"\x80" + (2**32).to_bytes(7, "big")}),
        odd_tars.block(b"x", magic=odd_tars.GNU, patches={136: b"\x80" + (2**62).to_bytes(11, "big")}),
        *[
            odd_tars.pax((key, value)) + odd_tars.file(b"x")
            for key, value in (
                (b"mtime", b"9999999999999999999"),
                (b"mtime", b"-9999999999999.5"),
                (b"atime", b"9223372036854775808"),
                (b"uid", b"9999999999999999999"),
                (b"uid", b"4294967295"),
                (b"gid", b"4294968296"),
                (b"path", b"/".join([b"d" * 200] * 16)),
            )
        ],
        odd_tars.pax((b"linkpath", b"t" * 1024)) + odd_tars.block(b"l", kind=b"2", target=b"t"),
    ],
)
def test_numbers_and_names_that_no_kernel_takes_are_found(member: bytes) -> None:
    """Cut to what it holds, a device can be the one that stands for a deletion."""
    (found,) = read_tar(member)
    assert "cannot be read in one way only" in found


def with_attribute(name: str, value: bytes, kind: bytes = b"0") -> bytes:
    key = f"SCHILY.xattr.{name}".encode()
    return odd_tars.pax((key, value)) + odd_tars.block(b"x", kind=kind, target=b"y" if kind == b"2" else b"")


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("security.capability", b"zz", b"0"),
        ("security.capability", V2 + b"\0", b"0"),
        ("security.capability", V2[:12], b"0"),
        ("security.capability", V2, b"5"),
        ("security.ima", b"q", b"0"),
        ("system.posix_acl_access", b"zz", b"0"),
        ("system.posix_acl_access", acl(), b"0"),
        ("system.posix_acl_access", acl((4, 5), (1, 7), (32, 5)), b"0"),
        ("system.posix_acl_access", acl((1, 7), (2, 7), (4, 5), (32, 5)), b"0"),
        ("system.posix_acl_access", acl((1, 8), (4, 5), (32, 5)), b"0"),
        ("system.posix_acl_access", acl((1, 7), (2, 7), (4, 5), (16, 7), (32, 5)), b"0"),
        ("system.posix_acl_access", acl((1, 7), (4, 5), (8, 7), (16, 7), (32, 5)), b"0"),
        ("system.posix_acl_default", acl((1, 7), (2, 7), (4, 5), (16, 7), (32, 5)), b"5"),
        ("security.capability", b"\1\0\0\x03" + bytes(16) + b"\xff\xff\xff\xff", b"0"),
        ("system.posix_acl_access", ACL, b"2"),
        ("system.posix_acl_default", ACL, b"0"),
        ("user.x", b"z" * 70000, b"0"),
        ("user.x", b"z", b"2"),
        ("user.x", b"z", b"6"),
        ("user." + "x" * 251, b"z", b"0"),
    ],
)
def test_attributes_that_no_kernel_takes_are_found(name: str, value: bytes, kind: bytes) -> None:
    (found,) = read_tar(with_attribute(name, value, kind))
    assert "cannot be read in one way only" in found


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("security.capability", V2, b"0"),
        ("security.capability", b"\0\0\0\x03" + bytes(20), b"0"),
        ("security.selinux", b"system_u:object_r:x:s0\0", b"0"),
        ("system.posix_acl_access", ACL, b"0"),
        ("system.posix_acl_access", acl((1, 7), (2, 7, 5), (4, 5), (16, 7), (32, 5)), b"0"),
        ("system.posix_acl_access", acl((1, 7), (4, 5), (8, 5, 0), (16, 7), (32, 5)), b"0"),
        ("security.capability", b"\1\0\0\x03" + bytes(16) + b"\xfe\xff\xff\xff", b"0"),
        ("system.posix_acl_default", ACL, b"5"),
        ("user.x", b"z" * 2000, b"5"),
    ],
)
def test_attributes_that_writers_set_are_right(name: str, value: bytes, kind: bytes) -> None:
    assert read_tar(with_attribute(name, value, kind)) == []


def test_attributes_of_one_member_take_the_room_that_ext4_needs_for_them() -> None:
    """It keeps 16 bytes beside each, and fills names and values up to multiples of 4."""
    for number, size, right in ((128, 0, True), (129, 0, False), (85, 9, True), (86, 9, False)):
        records = [(b"SCHILY.xattr.user.%03d" % n, b"z" * size) for n in range(number)]
        found = read_tar(odd_tars.pax(*records) + odd_tars.file(b"x"))
        assert ("too many to be set" in "".join(found)) is not right, (number, size)


@pytest.mark.parametrize("path", [b"./", b"opt/", b"./opt/models/"])
def test_a_folder_on_the_way_to_the_weights_is_as_it_was(path: bytes) -> None:
    changed = [
        odd_tars.block(path, kind=b"5", patches={100: odd_tars.octal(0o777, 8)}),
        odd_tars.block(path, kind=b"5", patches={108: odd_tars.octal(1234, 8)}),
        odd_tars.block(path, kind=b"5", patches={116: odd_tars.octal(1, 8)}),
        odd_tars.pax((b"uid", b"5")) + odd_tars.block(path, kind=b"5"),
        odd_tars.pax((b"SCHILY.xattr.system.posix_acl_default", ACL)) + odd_tars.block(path, kind=b"5"),
    ]
    for each in changed:
        (found,) = read_tar(each)
        assert "with another mode than 0755, another owner than root" in found
        assert found_in([entry("opt/")]) == []
    assert read_tar(odd_tars.block(path, kind=b"5")) == []


def test_a_time_before_1970_is_right() -> None:
    """GNU tar writes it in base 256."""
    long_ago = (-(10**9)).to_bytes(12, "big", signed=True)
    assert read_tar(odd_tars.block(b"x", magic=odd_tars.GNU, patches={136: long_ago})) == []
    (found,) = read_tar(odd_tars.block(b"x", magic=odd_tars.GNU, patches={108: long_ago[-8:]}))
    assert "the owner in a header is not plainly a number" in found


@pytest.mark.parametrize("kind", [spec.LAYER, spec.LAYER_ZSTD, spec.LAYER_GZIP])
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 512, 1 << 20])
@pytest.mark.parametrize("name", [b"BZh/x", b"\x50\x2a\x4d\x18x"])
def test_a_tar_that_begins_like_something_compressed_is_found_however_it_is_cut(
    kind: str, cut: int, name: bytes
) -> None:
    data = odd_tars.file(name, b"x") + odd_tars.END
    packs = {
        spec.LAYER: data,
        spec.LAYER_ZSTD: stored_zstd(data, cut),
        spec.LAYER_GZIP: gzip.compress(data),
    }
    blob = packs[kind]
    descriptor = Descriptor(kind, spec.digest_of(blob), len(blob))
    chunks = [blob[at : at + cut] for at in range(0, len(blob), cut)]
    (found,) = read(0, descriptor, spec.digest_of(data), chunks)
    assert "its tar begins with the mark of something compressed" in found


def stored_zstd(data: bytes, size: int) -> bytes:
    """Return a zstd frame of raw blocks, each of so many bytes, which a decoder gives out one by one."""
    blocks = [data[at : at + min(size, 1 << 16)] for at in range(0, len(data), min(size, 1 << 16))]
    ends = (at == len(blocks) - 1 for at in range(len(blocks)))
    packed = b"".join(
        (len(each) << 3 | end).to_bytes(3, "little") + each for each, end in zip(blocks, ends, strict=True)
    )
    return b"\x28\xb5\x2f\xfd\x00\x58" + packed


def many(number: int, start: int = 0, path: bytes = b"") -> Iterator[bytes]:
    """Yield a tar of so many small members, as pieces."""
    before = odd_tars.pax((b"path", path)) if path else b""
    for each in range(start, start + number):
        yield before + odd_tars.block(b"usr/%d" % each)
    yield odd_tars.END


def read_many(pieces: Iterable[bytes]) -> runtime_layers.LayerContents:
    data = b"".join(pieces)
    blob = Descriptor(spec.LAYER, spec.digest_of(data), len(data))
    return runtime_layers.read(0, blob, spec.digest_of(data), [data])


def test_a_layer_of_too_many_members_is_found_and_none_of_them_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_layers, "_MOST_MEMBERS", 100)
    right, wrong = read_many(many(100)), read_many(many(101))
    assert (right.findings, len(right.members)) == ((), 100)
    assert wrong.members == ()
    assert "holds more than 100 files and folders, or paths of more than 64 MiB" in wrong.findings[0]


def test_a_layer_of_too_long_paths_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_layers, "_MOST_PATH_BYTES", 1 << 20)
    deep = b"/".join([b"d"] * 1500)
    assert read_many(many(300, path=deep)).findings == ()
    assert "too many to be checked" in read_many(many(400, path=deep)).findings[0]


def test_an_image_of_too_many_members_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_layers, "_MOST_OF_IMAGE", 250)
    layers = [read_many(many(100, start)) for start in (0, 100, 200)]
    assert list(runtime_layers.findings(layers[:2])) == []
    (found,) = runtime_layers.findings(layers)
    assert "and those below it hold more than 250 files and folders: too many" in found


def test_a_zstd_window_that_is_too_large_is_called_so() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=26, write_content_size=False)
    data = odd_tars.file(b"x", bytes(5000)) + odd_tars.END
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    blob = packer.compress(data) + packer.flush()
    (found,) = findings(data, packed=blob)
    assert "its zstd frame needs a window of 67108864 bytes: too large, 33554432 are read at most" in found


def test_one_bad_layer_says_only_so_much() -> None:
    assert len(found_in([entry(f"opt/models/{n}") for n in range(1000)])) == 10


def read_all(layers: Iterable[Blob]) -> list[str]:
    contents = [
        runtime_layers.read(
            number,
            Descriptor(each.media_type, spec.digest_of(each.data), len(each.data)),
            spec.Digest(each.diff_id),
            [each.data],
        )
        for number, each in enumerate(layers)
    ]
    return list(runtime_layers.findings(contents))


@pytest.mark.parametrize("recipe", odd_layers.DECEPTIVE)
def test_each_way_to_deceive_is_found(recipe: str) -> None:
    """However it is compressed, and whatever harmless members stand around it."""
    for number in range(5):
        layers = odd_layers.deceptive(recipe, random.Random(f"{recipe} {number}"))
        assert read_all(layers), number


def test_sound_layers_are_right() -> None:
    sound = [each for each in odd_layers.images("unit", 300) if each.sound]
    assert [(each.recipe, found) for each in sound if (found := read_all(each.layers))] == []
