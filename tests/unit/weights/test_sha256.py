"""File and layer are hashed together, and each comes out as hashlib says: by either way, in any pieces."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podkiln.weights import sha256 as hashing
from podkiln.weights import sha256_native
from podkiln.weights.sha256 import HashlibHasher, LayerHasher
from podkiln.weights.sha256_native import NativeHasher

if TYPE_CHECKING:
    from collections.abc import Callable

    Kind = Callable[[], LayerHasher]


def shared() -> LayerHasher:
    """Translate sha256_native.c as a bake does: a machine that runs these tests has a compiler.

    Whether hashlib must do is then up to the processor alone.
    """
    library = sha256_native.library()
    if library is None:
        assert "sha_ni" not in Path("/proc/cpuinfo").read_text()
        return HashlibHasher()
    return NativeHasher(library)


@pytest.fixture(params=[HashlibHasher, shared], ids=["hashlib", "sha256_native.c"])
def kind(request: pytest.FixtureRequest) -> Kind:
    made: Kind = request.param
    return made


def tell(hashes: LayerHasher, data: bytes | memoryview) -> None:
    """Tell of some of a file as it is read, and as it is passed on."""
    hashes.content(data)
    hashes.passed(data)


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
    tell(hashes, data)
    assert (hashes.file(), hashes.layer()) == (sha256(data), sha256(data))


def test_nothing(kind: Kind) -> None:
    assert kind().layer() == sha256()


def test_a_vector_of_the_standard(kind: Kind) -> None:
    """FIPS 180-2, B.1 and B.2."""
    hashes = kind()
    hashes.begin()
    tell(hashes, b"abc")
    assert hashes.file() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    hashes = kind()
    hashes.frame(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
    assert hashes.layer() == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"


@given(
    files=st.lists(st.tuples(st.binary(max_size=700), st.lists(st.integers(0, 700), max_size=5)), max_size=4),
    heads=st.integers(1, 3),
)
@pytest.mark.parametrize("kind", [HashlibHasher, shared], ids=["hashlib", "sha256_native.c"])
def test_a_layer_of_several_files(kind: Kind, files: list[tuple[bytes, list[int]]], heads: int) -> None:
    hashes, whole = kind(), b""
    for number, (data, cuts) in enumerate(files):
        head = bytes([number]) * 512 * heads
        hashes.frame(head[:100])
        hashes.frame(head[100:])
        hashes.begin()
        for piece in pieces(data, cuts):
            tell(hashes, piece)
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
    tell(hashes, view(data)[:777])
    tell(hashes, view(data)[777:])
    assert hashes.file() == sha256(data)


def test_a_hash_that_was_asked_for_goes_on(kind: Kind) -> None:
    hashes = kind()
    hashes.begin()
    tell(hashes, b"one")
    assert (hashes.file(), hashes.file(), hashes.layer()) == (sha256(b"one"),) * 3
    tell(hashes, b"two")
    assert (hashes.file(), hashes.layer()) == (sha256(b"onetwo"),) * 2


def test_several_layers_at_once(kind: Kind) -> None:
    def hashed(seed: int) -> bool:
        data = bytearray(bytes([seed]) * (1 << 20))
        hashes = kind()
        hashes.frame(bytes(512))
        hashes.begin()
        for start in range(0, len(data), 65536):
            tell(hashes, memoryview(data)[start : start + 65536])
        return (hashes.file(), hashes.layer()) == (sha256(data), sha256(bytes(512), data))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(hashed, range(16)))


def test_a_length_beyond_32_bits_is_told(kind: Kind) -> None:
    """Bits are counted in 64: a file of 512 MiB has 2^32 of them."""
    block = bytearray(1 << 20)
    hashes, expected = kind(), hashlib.sha256()
    hashes.begin()
    for _ in range(513):
        tell(hashes, memoryview(block))
        expected.update(block)
    assert hashes.file() == expected.hexdigest()


def test_reading_is_ahead_of_passing_on(kind: Kind) -> None:
    """As it is on the way: what is read is not passed on yet."""
    first, second = os.urandom(700), os.urandom(900)
    hashes = kind()
    hashes.frame(bytes(512))
    hashes.begin()
    hashes.content(first)
    hashes.content(second)
    hashes.passed(first)
    hashes.passed(second)
    assert (hashes.file(), hashes.layer()) == (sha256(first, second), sha256(bytes(512), first, second))


def test_without_ctypes_hashlib_does() -> None:
    """Some have built their Python without libffi."""
    script = (
        "import sys; sys.modules['ctypes'] = None; from podkiln.weights.sha256 import hashes; print(hashes())"
    )
    root = Path(hashing.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True
    )
    assert "podkiln.weights.sha256.HashlibHasher" in done.stdout


def test_several_bakes_at_once_translate_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    @functools.cache
    def slow() -> None:
        asked.append(1)
        time.sleep(0.1)

    monkeypatch.setattr(sha256_native, "library", slow)
    with ThreadPoolExecutor(4) as pool:
        assert all(isinstance(made, HashlibHasher) for made in pool.map(lambda _: hashing.hashes(), range(4)))
    assert len(asked) == 1
