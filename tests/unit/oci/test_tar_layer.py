"""The tar of a weight layer: golden bytes, and that other programs read what we write."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podkiln.errors import IntegrityError
from podkiln.oci import tar_layer
from podkiln.oci.tar_layer import Entry, TarLayer, header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

GIB = 1 << 30


def written(files: dict[str, bytes], step: int = 1 << 16, offset: int = 0) -> bytes:
    """Return the tar of some files whose content comes `step` bytes at a time."""

    def opener(entry: Entry, start: int) -> Iterator[bytes]:
        data = files[entry.path]
        return (data[at : at + step] for at in range(start, len(data), step))

    entries = tuple(Entry(path, len(data)) for path, data in files.items())
    return b"".join(TarLayer(entries).chunks(opener, offset))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def field(block: bytes, start: int, size: int) -> bytes:
    return block[start : start + size]


def test_a_header_byte_by_byte() -> None:
    """The format, field by field, as the manual's struct posix_header has it."""
    block = header("opt/models/a.safetensors", 5)
    assert len(block) == 512
    assert field(block, 0, 100) == b"opt/models/a.safetensors".ljust(100, b"\0")
    assert field(block, 100, 8) == b"0000644\0"
    assert field(block, 108, 16) == b"0000000\x000000000\0"  # uid, gid
    assert field(block, 124, 12) == b"00000000005\0"
    assert field(block, 136, 12) == b"00000000000\0"  # mtime
    assert field(block, 148, 8) == b"%06o\0 " % sum(block[:148] + b" " * 8 + block[156:])
    assert field(block, 156, 1) == b"0"
    assert field(block, 157, 100) == bytes(100)
    assert field(block, 257, 8) == b"ustar  \0"
    assert block[265:] == bytes(247)  # no user and group names, no device, no second part of the name


GOLDEN: list[tuple[str, dict[str, bytes], int, str]] = [
    (
        "a small file",
        {"opt/models/vae/a.safetensors": b"hello"},
        10240,
        "aaf1399131d7f37a8c26a754b4026ad57c2caaa50d7c8374172200c9a4b92f8f",
    ),
    (
        "no byte at all",
        {"opt/models/vae/empty": b""},
        10240,
        "515045390eb566ac984c90ad35f6e92bd598edf53dc76b27fee24569172bd57d",
    ),
    (
        "a path of 100 bytes",
        {"opt/models/" + "x" * 89: b"1"},
        10240,
        "44a27f20abfe74e187bff7dcdb737150ae9d940a27e0ad5fa7302f5295ef04ca",
    ),
    (
        "a path of 101 bytes",
        {"opt/models/" + "x" * 90: b"1"},
        10240,
        "b956edf2e0260c522aa88aa5bfccc5d00620fd8abf07dcc890908ad863e4c725",
    ),
    (
        "a long folder",
        {f"opt/models/{'d' * 120}/{'f' * 200}": b"1"},
        10240,
        "3eae2fb6d94da4d18c4f1ff397f2b555a392beeaaf924e27951afdb162c3ffa2",
    ),
    (
        "other scripts",
        {"opt/models/loras/猫とö.safetensors": b"meow"},
        10240,
        "db775915b8e8ffebe4cabb8b0936a6738c0631b639f61115f036affc4a0b30ee",
    ),
    (
        "a bundle",
        {"opt/models/b/two": b"2" * 700, "opt/models/a/one": b"1", "opt/models/b/c/three": b"3" * 512},
        10240,
        "541a44ac05cfcbad91d1e1c5c6490f93e830aa1ed6c279f30fa9d77dd484ac0f",
    ),
    (
        "more than a record",
        {"opt/models/big": bytes(range(256)) * 40},
        20480,
        "5052b9544cdc589f73c44d051412cb4e91f9b66af72d06ca2b50af701d19a77a",
    ),
]


@pytest.mark.parametrize(
    ("files", "size", "digest"), [row[1:] for row in GOLDEN], ids=[row[0] for row in GOLDEN]
)
def test_golden_bytes(files: dict[str, bytes], size: int, digest: str) -> None:
    """These digests stand in people's locks. If one moves, PACKING must move with it."""
    assert tar_layer.PACKING == 1
    tar = written(files)
    assert (len(tar), sha256(tar)) == (size, digest)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (8 * GIB - 1, b"77777777777\0"),
        (8 * GIB, b"\x80" + bytes(6) + b"\x02\0\0\0\0"),
        (8 * GIB + 1, b"\x80" + bytes(6) + b"\x02\0\0\0\x01"),
        (23_802_932_552, b"\x80" + (23_802_932_552).to_bytes(11, "big")),
    ],
)
def test_sizes_on_both_sides_of_8_gib_take_one_header(size: int, expected: bytes) -> None:
    block = header("opt/models/unet/flux.safetensors", size)
    assert field(block, 124, 12) == expected
    assert len(block) == 512
    assert tarfile.TarInfo.frombuf(block, "utf-8", "strict").size == size
    entry = Entry("unet/flux.safetensors", size)
    assert TarLayer((entry,)).size % 10240 == 0
    assert 0 < TarLayer((entry,)).size - size <= 512 * 2 + 511 + 1024 + 10239


def test_tarfile_reads_it() -> None:
    for _, files, _, _ in GOLDEN:
        with tarfile.open(fileobj=io.BytesIO(written(files))) as tar:
            members = tar.getmembers()
            found = {m.name: tar.extractfile(m).read() for m in members if m.isfile()}  # type: ignore[union-attr]
            assert found == files
            assert list(found) == list(files)  # in the order given
            folders = [member.name for member in members if member.isdir()]
            assert folders == sorted(set(folders))
            assert [member.isdir() for member in members] == [True] * len(folders) + [False] * len(files)
            for member in members:
                assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
                assert member.mode == (0o755 if member.isdir() else 0o644)


def test_gnu_tar_unpacks_it(tmp_path: Path) -> None:
    for number, (_, files, _, _) in enumerate(GOLDEN):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "layer.tar").write_bytes(written(files))
        argv = ["tar", "--extract", "--file", "layer.tar"]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert {path: (folder / path).read_bytes() for path in files} == files


FILES = st.dictionaries(
    st.text("abcö/", min_size=1, max_size=150)
    .map(lambda text: "/".join(filter(None, text.split("/"))))
    .filter(bool)
    .map(lambda path: f"models/{path}.file"),
    st.binary(max_size=1500),
    min_size=1,
    max_size=4,
)


@given(files=FILES, step=st.integers(1, 2000))
def test_any_chunking_gives_the_same_bytes(files: dict[str, bytes], step: int) -> None:
    whole = written(files)
    assert written(files, step) == whole
    assert len(whole) == TarLayer(tuple(Entry(path, len(data)) for path, data in files.items())).size


@given(files=FILES, step=st.integers(1, 2000), data=st.data())
def test_it_goes_on_from_any_offset(files: dict[str, bytes], step: int, data: st.DataObject) -> None:
    whole = written(files)
    offset = data.draw(st.integers(0, len(whole)))
    assert written(files, step, offset) == whole[offset:]


@pytest.mark.parametrize(
    ("content", "problem"), [([b"123"], "2 fewer bytes"), ([b"12345", b"6"], "more bytes"), ([], "5 fewer")]
)
def test_a_file_of_another_length_is_refused(content: Iterable[bytes], problem: str) -> None:
    layer = TarLayer((Entry("opt/models/a", 5),))
    with pytest.raises(IntegrityError, match=problem):
        list(layer.chunks(lambda _entry, _offset: content))


@pytest.mark.parametrize("path", ["/a", "../a", "a/../b", "a//b", "./a", "a/", "", ".", "a/.wh.b", "a\0b"])
def test_paths_that_would_not_unpack_as_they_are_written_are_refused(path: str) -> None:
    with pytest.raises(IntegrityError):
        TarLayer((Entry(path, 1),))


def test_a_path_stands_once() -> None:
    with pytest.raises(IntegrityError, match="'a/b' is duplicated"):
        TarLayer((Entry("a/b", 1), Entry("a/b", 1)))
