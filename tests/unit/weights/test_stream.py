"""A layer on its way may be left at any byte and taken up at any earlier one: the bytes are the same."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hub_weights import access, weight
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.hub import Hub

from podkiln.errors import IntegrityError
from podkiln.oci import spec
from podkiln.plan.weight_layers import WeightLayerSpec
from podkiln.verify import blobs
from podkiln.weights import stream
from podkiln.weights.sha256 import HashlibHasher, hashes
from podkiln.weights.stream import WeightLayerStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from podkiln.oci.tar_layer import Chunk
    from podkiln.weights.sha256 import LayerHasher

MIB = 1 << 20


def fill(hub: Hub) -> None:
    hub.add("org/repo", "a.safetensors", 2 * MIB + 5)
    hub.add("org/repo", "b.safetensors", MIB + 700, seed=1)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as running:
        fill(running)
        yield running


@pytest.fixture
def whole(hub: Hub) -> bytes:
    with closing(stream_of(hub)) as layer:
        return joined(layer.chunks())


def stream_of(hub: Hub) -> WeightLayerStream:
    repository = hub.repositories["org/repo"]
    files = repository.commits[repository.head].values()
    return WeightLayerStream(WeightLayerSpec(tuple(weight(file) for file in files)), access(hub))


def joined(chunks: Iterable[Chunk]) -> bytes:
    """Put chunks together, each before the next is asked for: their memory is used again."""
    found = bytearray()
    for chunk in chunks:
        found += chunk
    return bytes(found)


# Chunks that were taken, bytes to go back from there, and bytes that are kept in memory.
BACK = {
    "not at all": (4, 0, 16 * MIB),
    "a byte": (4, 1, 16 * MIB),
    "into the first frame": (1, 700, 16 * MIB),
    "to the edge of a chunk": (2, MIB, 16 * MIB),
    "over an edge": (99, MIB + 4000, 16 * MIB),
    "to the edge of what is kept": (99, 2 * MIB, 2 * MIB),
    "a byte beyond it": (99, 2 * MIB + 1, 2 * MIB),
    "beyond it, from the first file": (2, MIB, MIB // 2),
    "into another file": (99, 2 * MIB, MIB // 2),
    "nothing is kept": (4, 700, 0),
    "nothing is kept, at the end": (99, 1, 0),
    "nothing is kept, not at all": (99, 0, 0),
}


@pytest.mark.parametrize("where", BACK.values(), ids=BACK)
def test_it_goes_back_as_far_as_it_is_asked_to(hub: Hub, whole: bytes, where: tuple[int, int, int]) -> None:
    goes_back(hub, whole, *where)


@settings(max_examples=20, deadline=None)
@given(
    chunks=st.integers(1, 12),
    back=st.integers(0, 4 * MIB),
    kept=st.one_of(st.just(0), st.integers(0, 5 * MIB)),
)
def test_it_goes_back_to_any_byte(chunks: int, back: int, kept: int) -> None:
    with Hub() as hub:
        fill(hub)
        with closing(stream_of(hub)) as layer:
            whole = joined(layer.chunks())
        goes_back(hub, whole, chunks, back, kept)


def goes_back(hub: Hub, whole: bytes, chunks: int, back: int, kept: int) -> None:
    """Take `chunks` chunks, then from `back` bytes before that: once more, and to the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "REPLAY_BUFFER_BYTES", kept)
        goes_back_with(hub, whole, chunks, back)


def goes_back_with(hub: Hub, whole: bytes, chunks: int, back: int) -> None:
    with closing(stream_of(hub)) as layer:
        first = joined(chunk for chunk, _ in zip(layer.chunks(), range(chunks), strict=False))
        offset = max(1, layer._replay.end - back)
        assert whole.startswith(first)
        assert joined(layer.chunks(offset)) == whole[offset:]
        assert layer.blob == spec.Descriptor(spec.LAYER, spec.digest_of(whole), len(whole))
        assert joined(layer.chunks(offset)) == whole[offset:]


def test_from_the_start_all_is_hashed_anew(hub: Hub, whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "REPLAY_BUFFER_BYTES", 0)
    with closing(stream_of(hub)) as layer:
        for _ in range(2):
            assert joined(layer.chunks()) == whole
            assert layer.blob
            assert layer.blob.digest == spec.digest_of(whole)


def test_what_is_kept_in_memory_is_not_fetched_again(hub: Hub, whole: bytes) -> None:
    with closing(stream_of(hub)) as layer:
        content = sum(each.size for each in layer._weights.values())
        for _ in range(2):
            assert joined(layer.chunks()) == whole
            assert layer.fetched == content


def test_the_digest_is_not_known_before_the_last_bytes(hub: Hub) -> None:
    with closing(stream_of(hub)) as layer:
        told = [layer.blob is not None for _ in layer.chunks()]
    assert (told[-1], any(told[:-1])) == (True, False)


def test_nobody_may_have_more_than_was_sent(hub: Hub) -> None:
    with (
        closing(stream_of(hub)) as layer,
        pytest.raises(IntegrityError, match="5 bytes are expected to be there"),
    ):
        next(iter(layer.chunks(5)))


def test_small_files_take_little_memory() -> None:
    """What is kept of them is not worth a read buffer each."""
    with Hub() as hub:
        for number in range(60):
            hub.add("org/repo", f"{number}.json", f'{{"a": {number}}}'.encode(), lfs=False)
        repository = hub.repositories["org/repo"]
        files = repository.commits[repository.head].values()
        bundle = WeightLayerSpec(tuple(weight(file) for file in files))
        tracemalloc.start()
        try:
            with closing(WeightLayerStream(bundle, access(hub))) as layer:
                assert len(joined(layer.chunks())) == bundle.size
            assert tracemalloc.get_traced_memory()[1] < 30 * MIB
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("kind", [HashlibHasher, hashes], ids=["hashlib", "what is fastest here"])
def test_by_either_way_of_hashing_it_is_one_layer(
    hub: Hub, whole: bytes, kind: Callable[[], LayerHasher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut in the middle, too: what passes a second time is hashed once."""
    monkeypatch.setattr(stream, "hashes", kind)
    with closing(stream_of(hub)) as layer:
        begun = layer.chunks()
        first = b"".join(bytes(next(begun)) for _ in range(3))
        rest = joined(layer.chunks(len(first) - 700))
        assert first[:-700] + rest == whole
        assert layer.blob == spec.Descriptor(spec.LAYER, spec.digest_of(whole), len(whole))


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("sha256", [EMPTY, "0" * 64])
def test_an_empty_file_is_hashed_like_any_other(sha256: str, number: int, hub: Hub) -> None:
    """Where nothing is to be read, the locked hash is compared all the same."""
    repository = hub.repositories["org/repo"]
    files = [weight(file) for file in repository.commits[repository.head].values()]
    files.insert(number, replace(files[0], destination="checkpoints/empty.bin", size=0, sha256=sha256))
    layer = WeightLayerStream(WeightLayerSpec(tuple(files)), access(hub))
    with closing(layer):
        if sha256 == EMPTY:
            assert spec.digest_of(joined(layer.chunks())) == getattr(layer.blob, "digest", None)
            return
        with pytest.raises(IntegrityError, match=f"empty.bin .* has sha256 {EMPTY}, but 0+ is locked"):
            joined(layer.chunks())
        assert layer.blob is None


def test_verify_hashes_an_empty_file_too_and_does_not_take_what_follows_for_it(hub: Hub) -> None:
    repository = hub.repositories["org/repo"]
    files = [weight(file) for file in repository.commits[repository.head].values()]
    empty = replace(files[0], destination="checkpoints/empty.bin", size=0, sha256=EMPTY)
    bundle = WeightLayerSpec((empty, *files))
    with closing(WeightLayerStream(bundle, access(hub))) as layer:
        content = joined(layer.chunks())

    class Held:
        def read(self, _: object) -> Iterator[bytes]:
            yield content

    for sha256, wrong in ((EMPTY, 0), ("0" * 64, 1)):
        listed = WeightLayerSpec((replace(empty, sha256=sha256), *files))
        placed: Any = SimpleNamespace(bundle=listed, blob=SimpleNamespace(size=len(content)))
        findings = blobs._read_layer(cast("Any", Held()), lambda *_: None, placed)
        assert len(findings) == wrong, findings
        assert all(f"empty.bin has the sha256 {EMPTY}" in finding for finding in findings)
