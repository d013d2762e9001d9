"""File and layer are hashed together, and each comes out as hashlib says: by either way, in any pieces."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podkiln import hashing
from podkiln.hashing import Hashes, Separate, Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Kind = Callable[[], Hashes]

BLOCK = 64


def shared() -> Hashes:
    """Translate hashing.c as a bake does: a machine that runs these tests has a compiler.

    Whether hashlib must do is then up to the processor alone.
    """
    library = hashing.load(hashing._compiled(Path(sys.prefix) / "podkiln"))
    return Shared(library) if library else Separate()


@pytest.fixture(params=[Separate, shared], ids=["hashlib", "hashing.c"])
def kind(request: pytest.FixtureRequest) -> Kind:
    made: Kind = request.param
    return made


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Let the next bake look for a compiler again, and the one after this test too."""
    hashing._library.cache_clear()
    yield
    hashing._library.cache_clear()


def sha256(*parts: bytes | bytearray) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut some bytes at some places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(places)]


@pytest.mark.parametrize("size", [0, 1, 3, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 1000, 4096])
def test_a_file_of_any_length(kind: Kind, size: int) -> None:
    data = os.urandom(size)
    hashes = kind()
    hashes.begin()
    hashes.content(data)
    assert (hashes.file(), hashes.layer()) == (sha256(data), sha256(data))


def test_nothing(kind: Kind) -> None:
    assert kind().layer() == sha256()


def test_a_vector_of_the_standard(kind: Kind) -> None:
    """FIPS 180-2, B.1 and B.2."""
    hashes = kind()
    hashes.begin()
    hashes.content(b"abc")
    assert hashes.file() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    hashes = kind()
    hashes.frame(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
    assert hashes.layer() == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"


@given(
    files=st.lists(st.tuples(st.binary(max_size=700), st.lists(st.integers(0, 700), max_size=5)), max_size=4),
    heads=st.integers(1, 3),
)
@pytest.mark.parametrize("kind", [Separate, shared], ids=["hashlib", "hashing.c"])
def test_a_layer_of_several_files(kind: Kind, files: list[tuple[bytes, list[int]]], heads: int) -> None:
    hashes, whole = kind(), b""
    for number, (data, cuts) in enumerate(files):
        head = bytes([number]) * 512 * heads
        hashes.frame(head[:100])
        hashes.frame(head[100:])
        hashes.begin()
        for piece in pieces(data, cuts):
            hashes.content(piece)
        assert hashes.file() == sha256(data)
        padding = bytes(-len(data) % 512)
        hashes.frame(padding)
        whole += head + data + padding
    hashes.frame(bytes(1024))
    assert hashes.layer() == sha256(whole, bytes(1024))


@pytest.mark.parametrize("view", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_any_kind_of_bytes(kind: Kind, view: Callable[[bytes], bytes]) -> None:
    data = os.urandom(1000)
    hashes = kind()
    hashes.begin()
    hashes.content(view(data)[:777])
    hashes.content(view(data)[777:])
    assert hashes.file() == sha256(data)


def test_a_hash_that_was_asked_for_goes_on(kind: Kind) -> None:
    hashes = kind()
    hashes.begin()
    hashes.content(b"one")
    assert (hashes.file(), hashes.file(), hashes.layer()) == (sha256(b"one"),) * 3
    hashes.content(b"two")
    assert (hashes.file(), hashes.layer()) == (sha256(b"onetwo"),) * 2


def test_several_layers_at_once(kind: Kind) -> None:
    def hashed(seed: int) -> bool:
        data = bytearray(bytes([seed]) * (1 << 20))
        hashes = kind()
        hashes.frame(bytes(512))
        hashes.begin()
        for start in range(0, len(data), 65536):
            hashes.content(memoryview(data)[start : start + 65536])
        return (hashes.file(), hashes.layer()) == (sha256(data), sha256(bytes(512), data))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(hashed, range(16)))


def test_a_length_beyond_32_bits_is_told(kind: Kind) -> None:
    """Bits are counted in 64: a file of 512 MiB has 2^32 of them."""
    block = bytearray(1 << 20)
    hashes, expected = kind(), hashlib.sha256()
    hashes.begin()
    for _ in range(513):
        hashes.content(memoryview(block))
        expected.update(block)
    assert hashes.file() == expected.hexdigest()


def test_a_file_begins_where_a_block_does() -> None:
    library: Any = SimpleNamespace(podkiln_compress=None)
    hashes = Shared(library)
    hashes.frame(b"x")
    with pytest.raises(ValueError, match="1 bytes into a block"):
        hashes.begin()


@pytest.mark.usefixtures("forgotten")
def test_it_is_translated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = type(shared())
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert type(hashing.hashes()) is usual
    made = list(tmp_path.rglob("*"))
    assert [path.suffix for path in made if path.is_file()] == [".so"]
    monkeypatch.setenv("PATH", "")
    hashing._library.cache_clear()
    assert type(hashing.hashes()) is usual


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(
    ("source", "path"),
    [("int main(void) {", None), ("int podkiln_supported(void) { return 0; }", None), (None, "/nowhere")],
    ids=["a compiler that fails", "another processor", "no compiler"],
)
def test_without_it_hashlib_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None, path: str | None
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    if source:
        monkeypatch.setattr(hashing, "_SOURCE", tmp_path / "hashing.c")
        hashing._SOURCE.write_text(source)
    if path:
        monkeypatch.setenv("PATH", path)
    assert isinstance(hashing.hashes(), Separate)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.usefixtures("forgotten")
def test_where_nothing_may_be_written_hashlib_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "podkiln").write_text("in the way")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert isinstance(hashing.hashes(), Separate)


def test_it_is_translated_without_a_warning(tmp_path: Path) -> None:
    argv = [*hashing._COMPILER, "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "it.so")]
    done = subprocess.run([*argv, str(hashing._SOURCE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
