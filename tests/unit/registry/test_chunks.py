"""Registries that do not take a blob in one piece get it in chunks, as large as they want them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from servers.registry import Fault, Registry

from podkiln.errors import RegistryError
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.registry import RegistryOptions, Repository
from podkiln.registry.headers import ChunkSizes
from podkiln.registry.upload import ByteSplitter, Upload

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
DATA = random.Random(5).randbytes(5 * MIB + 77)
BLOB = spec.Descriptor(spec.LAYER, spec.digest_of(DATA), len(DATA))


class Bytes:
    """Some content that counts how often it is read from the start."""

    name = "bytes"
    size = len(DATA)
    blob = BLOB

    def __init__(self) -> None:
        self.offsets: list[int] = []

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        self.offsets.append(offset)
        for start in range(offset, len(DATA), MIB):
            yield DATA[start : min(start + MIB, len(DATA))]


def upload(registry: Registry, content: Bytes | None = None, attempts: int = 4) -> None:
    settings = RegistryOptions(attempts=attempts, backoff=0.01, timeout=2.0, login=lambda _: None)
    with Repository(Reference.parse(f"{registry.host()}/you/app"), settings, push=True) as repository:
        Upload(repository, content or Bytes(), lambda *_: None).run()


def assert_whole(registry: Registry) -> None:
    assert registry.blobs == {("you/app", BLOB.digest): DATA}
    assert registry.uploads == {}


def test_one_piece_is_the_rule() -> None:
    with Registry(chunk_least=MIB) as registry:
        upload(registry)
        assert len(registry.asked("PATCH")) == 1
        assert_whole(registry)


@pytest.mark.parametrize(
    ("least", "most", "patches"),
    [(0, 1 << 20, 6), (0, 3 * MIB, 2), (0, 9 * MIB, 2), (5 * MIB, 9 * MIB, 2), (MIB, 2 * MIB, 3)],
)
def test_a_registry_that_names_a_most_gets_chunks_from_the_start(least: int, most: int, patches: int) -> None:
    with Registry(chunk_least=least, chunk_most=most) as registry:
        upload(registry)
        assert len(registry.asked("PATCH")) == patches
        assert registry.received == len(DATA)
        assert_whole(registry)


@pytest.mark.parametrize("status", [400, 413, 416])
def test_a_refusal_of_the_long_patch_is_answered_with_chunks(status: int) -> None:
    content = Bytes()
    with Registry(faults=[Fault("status", "PATCH", status=status)]) as registry:
        upload(registry, content)
        assert len(registry.asked("PATCH")) == 3  # the refused one, 4 MiB, the rest
        assert registry.received == len(DATA)
        assert_whole(registry)
    assert content.offsets == [0, 0]


def test_the_rest_of_a_cut_upload_may_be_too_long_for_one_patch() -> None:
    """GHCR takes one long PATCH from 0 on, but ranged ones only up to 4 MiB."""
    content = Bytes()
    with Registry(
        faults=[Fault("cut", "PATCH", after=MIB), Fault("status", "PATCH", status=416)]
    ) as registry:
        upload(registry, content)
        assert registry.received == len(DATA)
        assert_whole(registry)
    assert content.offsets == [0, MIB, MIB]


def test_chunks_are_cut_and_go_on_too() -> None:
    content = Bytes()
    with Registry(chunk_most=MIB) as registry:
        registry.faults += [Fault("nothing", "PATCH", times=2), Fault("cut", "PATCH", after=MIB // 2)]
        upload(registry, content)
        assert registry.received == len(DATA)
        assert_whole(registry)
    assert content.offsets == [0, 2 * MIB + MIB // 2]


def test_a_registry_that_takes_no_chunks_either_is_one_sentence() -> None:
    with Registry(faults=[Fault("status", "PATCH", times=-1, status=413)]) as registry:
        with pytest.raises(RegistryError, match=r"take blob bytes .* and says that it is too large"):
            upload(registry)
        assert (registry.blobs, registry.uploads) == ({}, {})


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (None, None, ChunkSizes()),
        ("5242880", "10485760", ChunkSizes(5242880, 10485760)),
        ("many", "0", ChunkSizes()),
        ("-1", " 65536 ", ChunkSizes(0, 65536)),
        (None, "1", ChunkSizes()),  # it would take a request for each byte
        ("10485760", "5242880", ChunkSizes(10485760)),  # no chunk could be right
    ],
)
def test_how_it_is_said(least: str | None, most: str | None, expected: ChunkSizes) -> None:
    pairs = {"oci-chunk-min-length": least, "oci-chunk-max-length": most}
    headers = {key: value for key, value in pairs.items() if value is not None}
    assert ChunkSizes.of(headers) == expected


def test_what_registries_say_of_chunks() -> None:
    assert ChunkSizes().usual == 4 * MIB
    assert ChunkSizes(least=9 * MIB).usual == 9 * MIB
    assert ChunkSizes(most=MIB).usual == MIB
    assert ChunkSizes(least=MIB, most=8 * MIB).usual == 4 * MIB


def test_pieces_have_the_lengths_that_are_asked_for() -> None:
    pieces = ByteSplitter(iter([b"abc", b"d", b"efghi"]))
    assert [b"".join(pieces.take(length)) for length in (2, 3, 0, 9, 1)] == [b"ab", b"cde", b"", b"fghi", b""]


class Unfinished(Bytes):
    """Content whose digest is not known yet: it comes from a source, and only part of it has."""

    blob = None  # type: ignore[assignment]


def test_a_registry_that_takes_no_streams_gets_what_is_known_in_one_put() -> None:
    with Registry(faults=[Fault("status", "PATCH", status=405, times=-1)]) as registry:
        upload(registry)
        assert_whole(registry)
        with pytest.raises(RegistryError, match="takes no streamed uploads") as refused:
            upload(registry, Unfinished())
        assert refused.value.hint == "Give --spool DIR: weights are then sent from there."
        assert_whole(registry)


@pytest.mark.parametrize(
    ("most", "length"),
    [(1 << 20, 1 << 20), (10**6, 1 << 19), (3 * MIB, 2 * MIB), (100_000, 1 << 16), (4 * MIB, 4 * MIB)],
)
def test_a_proxy_that_takes_small_bodies_gets_small_chunks(most: int, length: int) -> None:
    with Registry(body_most=most) as registry:
        upload(registry)
        assert registry.received == len(DATA)
        assert_whole(registry)
        settings = RegistryOptions(attempts=2, backoff=0.01, timeout=2.0, login=lambda _: None)
        with Repository(Reference.parse(f"{registry.host()}/you/app"), settings, push=True) as repository:
            for _ in range(2):
                before = len(registry.asked("PATCH"))
                Upload(repository, Bytes(), lambda *_: None).run()
                sent = len(registry.asked("PATCH")) - before
                registry.blobs.clear()
        assert repository.chunk == length
    assert sent == -(-len(DATA) // length)  # the second upload begins with what the first found out


def test_a_proxy_that_cuts_long_streams_without_a_word_gets_small_chunks() -> None:
    with Registry(body_most=MIB, body_cut=True) as registry:
        upload(registry)
        assert_whole(registry)


def test_a_proxy_that_takes_less_than_the_registry_asks_for_is_one_sentence() -> None:
    with Registry(body_most=MIB, chunk_least=2 * MIB) as registry:
        with pytest.raises(RegistryError, match="says that it is too large"):
            upload(registry)
        assert [len(registry.asked("PATCH")), registry.uploads] == [3, {}]


def test_chunks_shrink_to_a_length_worth_sending_and_no_further() -> None:
    sizes, lengths = ChunkSizes(), [4 * MIB]
    while shorter := sizes.smaller(lengths[-1]):
        lengths.append(shorter)
    assert lengths == [4 * MIB >> power for power in range(7)]
    assert ChunkSizes(least=MIB).smaller(4 * MIB) == 2 * MIB
    assert ChunkSizes(least=MIB).smaller(MIB) is None
