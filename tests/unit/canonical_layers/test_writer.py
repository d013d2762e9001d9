"""One sequence of bytes for the same files, however a differ has written them down."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podkiln.canonical_layers import entries, entry_list, writer
from podkiln.canonical_layers.tree import Tree
from podkiln.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from podkiln.canonical_layers.entries import Entry

EPOCH = 1_700_000_000
CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)  # cap_net_raw+ep, as the kernel stores it


@dataclass(frozen=True)
class Node:
    """A file as a test describes it."""

    path: str
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""
    mode: int = 0o644
    owner: int = 0
    time: float = EPOCH
    target: str = ""
    capability: bytes = b""


def tar(path: Path, nodes: Sequence[Node], form: int = tarfile.PAX_FORMAT, prefix: str = "") -> Path:
    """Write nodes as a differ might: in this order and form, with names of owners."""
    with tarfile.open(path, "w", format=form) as archive:
        for node in nodes:
            info = tarfile.TarInfo(prefix + node.path)
            info.type, info.mode, info.uid, info.gid = node.kind, node.mode, node.owner, node.owner
            info.mtime, info.linkname, info.size = node.time, node.target, len(node.data)
            if form != tarfile.PAX_FORMAT:
                info.mtime = int(node.time)
            info.uname = info.gname = "somebody"
            if node.capability:
                text = node.capability.decode(errors="surrogateescape")
                info.pax_headers = {"SCHILY.xattr.security.capability": text}
            archive.addfile(info, io.BytesIO(node.data))
    return path


def canonical(path: Path, epoch: int = EPOCH) -> bytes:
    with path.open("rb") as file:
        return b"".join(writer.chunks(entries.read(file, path.name, epoch), file))


def read(path: Path) -> list[Entry]:
    with path.open("rb") as file:
        return entries.read(file, path.name, EPOCH)


def listed(data: bytes) -> dict[str, Any]:
    """Return what another reader finds."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            each.name: (
                each.type,
                each.mode,
                each.uid,
                int(each.mtime),
                each.linkname,
                archive.extractfile(each).read() if each.isreg() else b"",  # type: ignore[union-attr]
            )
            for each in archive
        }


NAMES = st.sampled_from(["a", "b", "é", "x" * 90, "long-" + "n" * 120, "z.py", ".wh.old"])
FILES = st.builds(
    Node,
    path=NAMES,
    data=st.binary(max_size=1500),
    mode=st.sampled_from([0o644, 0o755, 0o4755]),
    owner=st.sampled_from([0, 1000, 0o7777777 + 1]),
    time=st.sampled_from([0, 5.5, EPOCH, EPOCH + 77, EPOCH + 0.5]),
    capability=st.sampled_from([b"", CAPABILITY]),
)
LINKS = st.builds(
    Node, path=NAMES, kind=st.just(tarfile.SYMTYPE), target=st.sampled_from(["a", "/b", "é" * 60, "../c"])
)
TREES = st.lists(
    st.one_of(FILES, LINKS, st.builds(Node, path=NAMES, kind=st.just(tarfile.DIRTYPE), mode=st.just(0o755))),
    max_size=6,
    unique_by=lambda node: node.path,
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(nodes=TREES, order=st.randoms(use_true_random=False))
def test_order_form_and_names_of_owners_change_nothing(tmp_path: Path, nodes: list[Node], order: Any) -> None:
    wanted = canonical(tar(tmp_path / "one", nodes))
    other = list(nodes)
    order.shuffle(other)
    assert canonical(tar(tmp_path / "other", other, prefix="./")) == wanted
    if all(node.owner <= 0o7777777 and not node.capability for node in nodes):
        assert canonical(tar(tmp_path / "gnu", other, tarfile.GNU_FORMAT)) == wanted


@QUICK
@given(nodes=TREES)
def test_the_canonical_form_of_a_canonical_layer_is_itself_and_holds_the_same_files(
    tmp_path: Path, nodes: list[Node]
) -> None:
    made = canonical(tar(tmp_path / "one", nodes))
    (tmp_path / "again").write_bytes(made)
    assert canonical(tmp_path / "again") == made
    wanted = {
        node.path: (node.kind, node.mode, node.owner, min(int(node.time), EPOCH), node.target, node.data)
        for node in nodes
    }
    assert listed(made) == wanted


def test_the_bytes_of_today(tmp_path: Path) -> None:
    """Whatever changes them raises VERSION, and with it every digest."""
    nodes = [
        Node("usr", tarfile.DIRTYPE, mode=0o755),
        Node("usr/bin/ping", data=b"ELF", mode=0o755, capability=CAPABILITY),
        Node("usr/" + "long/" * 25 + "name", data=b"x" * 600, owner=1000, time=7),
        Node("usr/link", tarfile.SYMTYPE, target="bin/ping"),
        Node("usr/same", tarfile.LNKTYPE, target="usr/bin/ping"),
        Node("dev/null", tarfile.CHRTYPE, mode=0o666),
        Node("usr/.wh.gone"),
        Node("étc", data=b"unicode"),
    ]
    made = canonical(tar(tmp_path / "one", nodes))
    assert writer.VERSION == 2
    assert (
        hashlib.sha256(made).hexdigest() == "f21a296ecbe774b5070a5279bdfe6511cc74db07a30ce3d1a3b785b93642f728"
    )


def test_a_layer_is_stored_as_zstd_with_both_digests(tmp_path: Path) -> None:
    source = tar(tmp_path / "one", [Node("a", data=b"text" * 5000)])
    with source.open("rb") as file:
        made = writer.write(read(source), file, tmp_path / "blob")
    stored = (tmp_path / "blob").read_bytes()
    plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(stored)).read()
    assert plain == canonical(source)
    assert made.digest == f"sha256:{hashlib.sha256(stored).hexdigest()}"
    assert made.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert (made.size, len(stored) < 5000) == (len(stored), True)


def test_the_first_name_of_a_file_with_several_has_the_content(tmp_path: Path) -> None:
    one = [
        Node("b", data=b"same"),
        Node("a", tarfile.LNKTYPE, target="b"),
        Node("c", tarfile.LNKTYPE, target="a"),
    ]
    other = [
        Node("c", data=b"same"),
        Node("a", tarfile.LNKTYPE, target="c"),
        Node("b", tarfile.LNKTYPE, target="c"),
    ]
    made = canonical(tar(tmp_path / "one", one))
    assert canonical(tar(tmp_path / "other", other)) == made
    assert [(name, each[0], each[4]) for name, each in listed(made).items()] == [
        ("a", tarfile.REGTYPE, ""),
        ("b", tarfile.LNKTYPE, "a"),
        ("c", tarfile.LNKTYPE, "a"),
    ]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([Node("../up")], "leads out of it"),
        ([Node("a"), Node("./a")], "twice"),
        ([Node("a", tarfile.LNKTYPE, target="b")], "which it lacks"),
        ([Node("a", tarfile.LNKTYPE, target="b"), Node("b", tarfile.LNKTYPE, target="a")], "which it lacks"),
        ([Node("a", tarfile.CONTTYPE)], "of a kind"),
        ([Node("a\udcff")], "not UTF-8"),
        ([Node("a", tarfile.SYMTYPE, target="b\udcff")], "not UTF-8"),
        ([Node("a", tarfile.SYMTYPE, target="b" * 1024)], "to a path of 1024 bytes"),
        ([Node("a", tarfile.SYMTYPE)], "the link 'a' to nothing"),
        ([Node("d", tarfile.DIRTYPE), Node("a", tarfile.LNKTYPE, target="d")], "a hard link to 'd'"),
        ([Node("a"), Node("a/b")], "'a/b', and 'a' is no folder"),
        ([Node(".")], "in the place of its root"),
        ([Node("a/.wh.")], "which names nothing"),
    ],
)
def test_what_no_differ_writes_is_refused(tmp_path: Path, nodes: list[Node], words: str) -> None:
    with pytest.raises(IntegrityError, match=words) as failure:
        read(tar(tmp_path / "one", nodes, tarfile.GNU_FORMAT))
    assert "--base" in str(failure.value.hint)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"path": "a\0b"}, "or has a NUL"),
        ({"uid": "-5"}, "with an owner or a device number that no tar can hold"),
        ({"mtime": "nan"}, "could not be read as a tar"),
        ({"mtime": "inf"}, "could not be read as a tar"),
        ({"mtime": "1e999"}, "could not be read as a tar"),
    ],
)
def test_pax_records_that_no_layer_has(tmp_path: Path, headers: dict[str, str], words: str) -> None:
    with tarfile.open(tmp_path / "one", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = headers
        archive.addfile(info)
    with pytest.raises(IntegrityError, match=words):
        read(tmp_path / "one")


def test_headers_of_headers_are_refused_and_a_deep_tree_is_not(tmp_path: Path) -> None:
    chain = tarfile.TarInfo("a")
    chain.type = tarfile.GNUTYPE_LONGNAME
    (tmp_path / "one").write_bytes(chain.tobuf(tarfile.GNU_FORMAT) * 3000 + bytes(1024))
    with pytest.raises(IntegrityError, match="headers of headers"):
        read(tmp_path / "one")
    tree, deep = Tree(), "a" + "/a" * 1900
    lay(tree, tmp_path / "two", [Node(deep, tarfile.DIRTYPE)])
    assert lay(tree, tmp_path / "three", [Node(".wh.a")]) == [".wh.a"]
    assert lay(tree, tmp_path / "four", [Node(deep, tarfile.DIRTYPE)]) == [deep]


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    source = tar(tmp_path / "one", [Node("a"), Node("b")])
    data = bytearray(source.read_bytes())
    data[512] ^= 1
    source.write_bytes(data)
    with pytest.raises(IntegrityError, match="could not be read as a tar"):
        read(source)
    source.write_bytes(tar(source, [Node("a")]).read_bytes() + bytes(512) + b"more")
    with pytest.raises(IntegrityError, match="something follows its end"):
        read(source)


def test_whiteouts_stand_before_what_takes_their_place(tmp_path: Path) -> None:
    """Docker's overlay2 store unpacks in order: a whiteout behind a file would remove that."""
    source = tar(tmp_path / "one", [Node("+x"), Node("d/+x"), Node("d/.wh.+x"), Node(".wh.+x"), Node("-")])
    assert [each.path for each in read(source)] == [
        b".wh.+x",
        b"+x",
        b"-",
        b"d/.wh.+x",
        b"d/+x",
    ]


@pytest.mark.parametrize("data", [b"x" * 512, b"", b"not a tar" * 200])
def test_what_is_no_tar_is_refused_or_empty(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "one").write_bytes(data)
    with pytest.raises(IntegrityError, match="could not be read as a tar"):
        read(tmp_path / "one")


def test_attributes_that_describe_the_builder_are_dropped_and_unknown_ones_are_refused(
    tmp_path: Path,
) -> None:
    def with_attribute(name: str) -> Path:
        with tarfile.open(tmp_path / "one", "w", format=tarfile.PAX_FORMAT) as archive:
            info = tarfile.TarInfo("a")
            info.pax_headers = {f"SCHILY.xattr.{name}": "value"}
            archive.addfile(info)
        return tmp_path / "one"

    plain = canonical(tar(tmp_path / "plain", [Node("a", time=0)]))
    assert canonical(with_attribute("security.selinux")) == plain
    with pytest.raises(IntegrityError, match=r"'user\.note': no rule says what for"):
        read(with_attribute("user.note"))


def test_a_list_of_entries_is_stored_and_read_again_or_refused(tmp_path: Path) -> None:
    nodes = [
        Node("é", data=b"1" * 5000, capability=CAPABILITY),
        Node("b", tarfile.LNKTYPE, target="é"),
        Node("c", tarfile.SYMTYPE, target="../é"),
    ]
    found = read(tar(tmp_path / "one", nodes))
    stored = entry_list.dump(found, "key")
    assert entry_list.load(stored, "key") == found
    assert [each.offset for each in entry_list.load(stored, "key")] == [each.offset for each in found]
    none: Any = None
    nothing = entries.Entry(none, none, none, none, none, none)
    other = (
        entry_list.dump([], "key")[:-1],
        entry_list.dump(found, "other"),
        entry_list.dump([nothing], "key"),
    )
    for damaged in (b"", stored[:-9], stored.replace(stored[40:44], b"????"), *other):
        with pytest.raises(ValueError, match=r"\w"):
            entry_list.load(damaged, "key")


def lay(tree: Tree, path: Path, nodes: Sequence[Node]) -> list[str]:
    source = tar(path, nodes)
    return [each.path.decode() for each in tree.lay(read(source))]


def test_what_equals_what_lies_below_is_dropped(tmp_path: Path) -> None:
    tree = Tree()
    below = [
        Node("d", tarfile.DIRTYPE, mode=0o755),
        Node("d/a", data=b"1"),
        Node("d/b", data=b"2"),
        Node("e"),
    ]
    assert lay(tree, tmp_path / "0", below) == ["d", "d/a", "d/b", "e"]
    again = [below[0], Node("d/a", data=b"1"), Node("d/b", data=b"3"), Node("e", mode=0o600), Node("f")]
    assert lay(tree, tmp_path / "1", again) == ["d/b", "e", "f"]
    assert lay(tree, tmp_path / "2", again) == []
    assert lay(tree, tmp_path / "3", [Node("d/b", data=b"2")]) == ["d/b"]


def test_what_a_whiteout_hides_lies_below_no_more(tmp_path: Path) -> None:
    tree = Tree()
    files = [Node("d", tarfile.DIRTYPE, mode=0o755), Node("d/a", data=b"1"), Node("e")]
    lay(tree, tmp_path / "0", files)
    assert lay(tree, tmp_path / "1", [Node(".wh.e"), Node("d/.wh.a")]) == [".wh.e", "d/.wh.a"]
    assert lay(tree, tmp_path / "2", files) == ["d/a", "e"]
    opaque = [*files[:2], Node("d/.wh..wh..opq")]
    assert lay(tree, tmp_path / "3", opaque) == ["d", "d/.wh..wh..opq", "d/a"]
    assert lay(tree, tmp_path / "4", [Node("d")]) == ["d"]
    assert lay(tree, tmp_path / "5", files) == ["d", "d/a"]


def test_what_hides_a_folder_hides_all_in_it_though_no_layer_told_of_the_folder(tmp_path: Path) -> None:
    tree = Tree()
    file = Node("a/b/c", data=b"1")
    lay(tree, tmp_path / "0", [file])
    assert lay(tree, tmp_path / "1", [Node(".wh.a")]) == [".wh.a"]
    folders = [Node("a", tarfile.DIRTYPE), Node("a/b", tarfile.DIRTYPE)]
    assert lay(tree, tmp_path / "2", [*folders, file]) == ["a", "a/b", "a/b/c"]


def test_a_file_with_several_names_is_kept(tmp_path: Path) -> None:
    tree = Tree()
    files = [Node("a", data=b"1"), Node("b", tarfile.LNKTYPE, target="a")]
    lay(tree, tmp_path / "0", [Node("a", data=b"1")])
    assert lay(tree, tmp_path / "1", files) == ["a", "b"]
