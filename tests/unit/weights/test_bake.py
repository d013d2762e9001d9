"""Weight layers arrive whole and right, over two wires that break, or not at all: with real sockets."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import random
import socket
import tarfile
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hub_weights import access, weight
from servers.hub import Hub
from servers.hub_faults import Fault as HubFault
from servers.registry import Fault, Registry

from pod.net.http import Limits
from pod.net.hubs import Hubs
from pod.net.transfer_policy import TransferPolicy
from podkiln.errors import IntegrityError, PodkilnError, RegistryError, SourceError
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.oci.tar_layer import Entry, TarLayer
from podkiln.plan.weight_layers import WeightFile, WeightLayerSpec, bundles
from podkiln.registry import RegistryOptions, Repository
from podkiln.registry.credentials import Credentials
from podkiln.weights import stream
from podkiln.weights.bake import BakeResult, bake
from podkiln.weights.sink import LayoutSink, RegistrySink
from podkiln.weights.source import SourceClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers.hub_content import HubFile

    from podkiln.registry import Progress
    from podkiln.registry.upload import BlobSource

MIB = 1 << 20
SIZE = 3 * MIB + 999
ME = Credentials("me", "s3cret")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def file(hub: Hub) -> HubFile:
    return hub.add("org/repo", "a.safetensors", SIZE)


def layer_bytes(*files: HubFile) -> bytes:
    """Return the layer as it must be, made without any of the code that streams."""
    contents = {f"opt/models/checkpoints/{file.name}": bytes(file.content) for file in files}
    tar = TarLayer(tuple(Entry(path, len(content)) for path, content in contents.items()))
    return b"".join(tar.chunks(lambda entry, offset: [contents[entry.path][offset:]]))


def push(hub: Hub, registry: Registry, *groups: WeightLayerSpec, **more: Any) -> list[BakeResult]:
    timeout = more.pop("timeout", 1.0)
    settings = RegistryOptions(attempts=5, backoff=0.01, timeout=timeout, login=lambda _: ME)
    reference = Reference.parse(f"{registry.host()}/you/app")
    mount_from = more.pop("mount_from", ())
    with Repository(reference, settings, push=True, mount_from=mount_from) as repository:
        return bake(groups, RegistrySink(repository, mount_from), more.pop("how", access(hub)), **more)


def assert_kept(registry: Registry, *layers: bytes) -> None:
    """The registry holds exactly these layers, and nothing half-made."""
    assert sorted(registry.blobs) == sorted(("you/app", spec.digest_of(layer)) for layer in layers)
    assert all(spec.digest_of(data) == digest for (_, digest), data in registry.blobs.items())
    assert registry.uploads == {}


def test_a_layer_goes_from_source_to_registry(hub: Hub, file: HubFile) -> None:
    told: list[tuple[str, int, int]] = []
    with Registry() as registry:
        (baked,) = push(
            hub, registry, WeightLayerSpec((weight(file),)), on_progress=lambda *row: told.append(row)
        )
        expected = layer_bytes(file)
        assert_kept(registry, expected)
        assert baked.blob == spec.Descriptor(spec.LAYER, spec.digest_of(expected), len(expected))
        assert (baked.how, baked.fetched) == ("uploaded", SIZE)
        assert (len(registry.asked("PATCH")), hub.served()) == (1, SIZE)
        assert told[-1] == ("checkpoints/a.safetensors", len(expected), len(expected))
        with tarfile.open(fileobj=io.BytesIO(expected)) as tar:
            unpacked = tar.extractfile("opt/models/checkpoints/a.safetensors")
            assert unpacked
            assert hashlib.sha256(unpacked.read()).hexdigest() == file.sha256


def test_what_is_made_is_told_at_once(hub: Hub, file: HubFile) -> None:
    """A later layer may fail: what was made before it is there, and must not be made again."""
    bad = hub.add("org/repo", "bad.safetensors", SIZE, seed=9)
    good, wrong = WeightLayerSpec((weight(file),)), WeightLayerSpec((replace(weight(bad), sha256="0" * 64),))
    told: list[BakeResult] = []
    with Registry() as registry:
        with pytest.raises(IntegrityError):
            push(hub, registry, good, wrong, jobs=1, on_baked=told.append)
        assert [each.bundle for each in told] == [good]
        assert_kept(registry, layer_bytes(file))
        served = hub.served()
        known = {good.recipe: told[0].blob.digest}
        (again,) = push(hub, registry, good, known=known, on_baked=told.append)
        assert (again.how, hub.served(), len(told)) == ("existing", served, 1)


def test_several_at_once_come_back_in_order(hub: Hub) -> None:
    files = [hub.add("org/repo", f"{n}.safetensors", SIZE - n, seed=n) for n in range(5)]
    small = [hub.add("org/repo", f"s{n}.json", f'{{"a": {n}}}'.encode(), lfs=False) for n in range(3)]
    described = [weight(each, model=f"m{number}") for number, each in enumerate(files)]
    groups = bundles([*described, *(weight(each) for each in small)])
    with Registry() as registry:
        baked = push(hub, registry, *groups, jobs=3)
        assert [each.bundle for each in baked] == list(groups)
        assert_kept(registry, *map(layer_bytes, files), layer_bytes(*small))


def test_a_layer_that_is_known_and_there_is_not_fetched(hub: Hub, file: HubFile) -> None:
    group = WeightLayerSpec((weight(file),))
    with Registry() as registry:
        (baked,) = push(hub, registry, group)
        hits, received = len(hub.hits), registry.received
        known = {group.recipe: baked.blob.digest}
        (again,) = push(hub, registry, group, known=known)
        assert (again.how, again.fetched, again.blob) == ("existing", 0, baked.blob)
        assert (len(hub.hits), registry.received) == (hits, received)


def test_a_layer_that_is_known_and_nearby_is_mounted(hub: Hub, file: HubFile) -> None:
    group, layer = WeightLayerSpec((weight(file),)), layer_bytes(file)
    with Registry(auth="bearer") as registry:
        registry.blobs["you/other", spec.digest_of(layer)] = layer
        known = {group.recipe: spec.digest_of(layer)}
        (baked,) = push(hub, registry, group, known=known, mount_from=["you/none", "you/other"])
        assert (baked.how, hub.hits, registry.received) == ("mounted", [], 0)
        assert registry.uploads == {}


def test_a_layer_that_is_known_and_nowhere_is_made_again(hub: Hub, file: HubFile) -> None:
    group, layer = WeightLayerSpec((weight(file),)), layer_bytes(file)
    with Registry() as registry:
        (baked,) = push(hub, registry, group, known={group.recipe: spec.digest_of(layer)})
        assert baked.how == "uploaded"
        assert_kept(registry, layer)


def test_a_lock_that_lies_about_a_layer_is_found_out_before_the_commit(hub: Hub, file: HubFile) -> None:
    group = WeightLayerSpec((weight(file),))
    with Registry() as registry:
        with pytest.raises(IntegrityError, match="but the lock says sha256:0000"):
            push(hub, registry, group, known={group.recipe: spec.Digest("sha256:" + "0" * 64)})
        assert_kept(registry)


def test_one_flipped_byte_is_caught_a_hundred_times_out_of_a_hundred(hub: Hub) -> None:
    """Wherever it is: the closing PUT is not sent, the session is deleted, and both hashes are named."""
    small = hub.add("org/repo", "small.safetensors", 50_000)
    places = [0, 49_999, *random.Random(7).sample(range(50_000), 98)]
    with Registry() as registry:
        for place in places:
            hub.fault(HubFault("flip", after=place))
            with pytest.raises(IntegrityError) as caught:
                push(hub, registry, WeightLayerSpec((weight(small),)))
            flipped = bytearray(small.content)
            flipped[place] ^= 1
            found = hashlib.sha256(flipped).hexdigest()
            assert f"has sha256 {found}, but {small.sha256} is locked" in str(caught.value)
        assert caught.value.exit_code == 12
        assert_kept(registry)
        assert len(registry.asked("DELETE")) == 100
        assert registry.asked("PUT") == []


def test_a_wrong_file_in_a_bundle_is_caught_before_the_next_is_fetched(hub: Hub) -> None:
    one, two = (hub.add("org/repo", f"{n}.safetensors", 5000, seed=n) for n in range(2))
    hub.fault(HubFault("flip", "0.safetensors", after=9))
    with Registry() as registry:
        with pytest.raises(IntegrityError, match=r"0\.safetensors .* is locked"):
            push(hub, registry, WeightLayerSpec((weight(one), weight(two))))
        assert hub.downloads("1.safetensors") == []
        assert_kept(registry)


def cuts(seed: int, count: int = 10) -> list[int]:
    return sorted(random.Random(seed).sample(range(1, SIZE), count))


def lengths(places: list[int]) -> list[int]:
    return [stop - start for start, stop in zip([0, *places], places, strict=False)]


@pytest.mark.parametrize("kept", [16 * MIB, 1 * MIB, 0], ids=["kept", "kept in part", "fetched again"])
@pytest.mark.parametrize("ends", ["source", "registry", "both"])
def test_ten_cuts_at_either_end(
    hub: Hub, file: HubFile, ends: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the registry lost is given again from memory, or else by Range from the source."""
    monkeypatch.setattr(stream, "REPLAY_BUFFER_BYTES", kept)
    monkeypatch.setattr("podkiln.registry.upload._HEADWAY", 1)
    if ends != "registry":
        hub.fault(*(HubFault("cut", after=length) for length in lengths(cuts(1))))
    with Registry() as registry:
        if ends != "source":
            registry.faults += [Fault("cut", "PATCH", after=length) for length in lengths(cuts(2))]
        (baked,) = push(hub, registry, WeightLayerSpec((weight(file),)))
        assert_kept(registry, layer_bytes(file))
        assert not any(fault.times for fault in registry.faults)
        assert len(registry.asked("POST")) == 1  # resumed each time, never begun anew
        if ends == "source":
            assert len(registry.asked("PATCH")) == 1
        if kept > SIZE:
            assert baked.fetched == SIZE
        elif ends != "source" and kept == 0:
            assert baked.fetched > SIZE


def test_a_source_that_changes_between_two_readings_is_not_committed(
    hub: Hub, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry finds that the second reading was another file; then all of it is sent anew."""
    monkeypatch.setattr(stream, "REPLAY_BUFFER_BYTES", 0)
    with Registry() as registry:
        registry.faults += [Fault("cut", "PATCH", after=MIB)]
        hub.fault(HubFault("flip", skip=1, after=MIB + 5000))
        push(hub, registry, WeightLayerSpec((weight(file),)))
        assert hub.script.faults[0].times == 0
        assert_kept(registry, layer_bytes(file))


def test_a_lost_upload_is_hashed_again_from_its_first_byte(
    hub: Hub, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "REPLAY_BUFFER_BYTES", 0)
    with Registry() as registry:
        registry.faults += [Fault("cut", "PATCH", after=MIB), Fault("forget", "GET", "uploads")]
        hub.fault(HubFault("flip", skip=1, after=5000))
        with pytest.raises(IntegrityError, match=f"but {file.sha256} is locked"):
            push(hub, registry, WeightLayerSpec((weight(file),)))
        assert registry.asked("PUT") == []
        assert_kept(registry)


PASSES: list[tuple[str, list[Fault]]] = [
    ("416 to the long PATCH", [Fault("status", "PATCH", status=416)]),
    ("413 to the long PATCH", [Fault("status", "PATCH", status=413)]),
    ("429 again and again", [Fault("status", status=429, retry_after="0", times=4)]),
    ("503 at the PATCH", [Fault("status", "PATCH", status=503, times=3)]),
    ("a cut, then 416 to the rest", [Fault("cut", "PATCH", after=MIB), Fault("status", "PATCH", status=416)]),
    ("a cut, the upload forgotten", [Fault("cut", "PATCH", after=MIB), Fault("forget", "GET", "uploads")]),
    ("a byte flipped on the wire", [Fault("flip", "PATCH")]),
    ("kept in part", [Fault("short", "PATCH", after=MIB)]),
    ("no answer to the PATCH", [Fault("mute", "PATCH")]),
    ("no answer to the commit", [Fault("mute", "PUT", "digest=")]),
    ("the token expires at the PATCH", [Fault("expire", "PATCH")]),
    ("the token expires at the commit", [Fault("expire", "PUT")]),
]


@pytest.mark.parametrize("faults", [faults for _, faults in PASSES], ids=[what for what, _ in PASSES])
def test_what_passes_at_the_registry(hub: Hub, file: HubFile, faults: list[Fault]) -> None:
    with Registry(auth="bearer", faults=[Fault(**vars(fault)) for fault in faults]) as registry:
        push(hub, registry, WeightLayerSpec((weight(file),)))
        assert not any(fault.times for fault in registry.faults)
        assert_kept(registry, layer_bytes(file))


@pytest.mark.parametrize("most", [MIB // 3, MIB, 2 * MIB])
def test_a_registry_that_demands_chunks(hub: Hub, file: HubFile, most: int) -> None:
    with Registry(chunk_most=most, faults=[Fault("nothing", "PATCH"), Fault("cut", "PATCH")]) as registry:
        (baked,) = push(hub, registry, WeightLayerSpec((weight(file),)))
        assert_kept(registry, layer_bytes(file))
        assert baked.fetched == SIZE


def test_storms_at_both_ends(hub: Hub, file: HubFile) -> None:
    hub.fault(HubFault("status", status=429, retry_after="0", times=3))
    hub.fault(HubFault("cut", after=MIB), HubFault("status", status=503, skip=1, times=3))
    with Registry(faults=[Fault("status", status=429, retry_after="0", times=3)]) as registry:
        push(hub, registry, WeightLayerSpec((weight(file),)))
        assert_kept(registry, layer_bytes(file))


REFUSED: list[tuple[str, list[HubFault], list[Fault], type[PodkilnError], str]] = [
    ("source", [HubFault("status", where="hub", status=404, times=-1)], [], SourceError, "is not there"),
    ("source later", [HubFault("cut", after=MIB), HubFault("status", status=404)], [], SourceError, "404"),
    ("a page", [HubFault("html")], [], SourceError, "answered with a page"),
    ("denied", [], [Fault("status", "POST", times=-1, status=403)], RegistryError, "forbids it"),
    ("full", [], [Fault("status", "PATCH", times=-1, status=507)], RegistryError, "507"),
    ("down", [], [Fault("cut", times=-1)], RegistryError, "cut the connection"),
]


@pytest.mark.parametrize(
    ("at_hub", "at_registry", "kind", "sentence"),
    [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)
def test_what_does_not_pass(
    hub: Hub,
    file: HubFile,
    at_hub: list[HubFault],
    at_registry: list[Fault],
    kind: type[PodkilnError],
    sentence: str,
) -> None:
    hub.fault(*(HubFault(**vars(fault)) for fault in at_hub))
    with Registry(faults=[Fault(**vars(fault)) for fault in at_registry]) as registry:
        with pytest.raises(kind, match=sentence):
            push(hub, registry, WeightLayerSpec((weight(file),)))
        assert_kept(registry)


def test_a_source_that_refuses_is_asked_once(hub: Hub, file: HubFile) -> None:
    hub.fault(HubFault("status", where="hub", status=404, times=-1))
    with Registry() as registry, pytest.raises(SourceError):
        push(hub, registry, WeightLayerSpec((weight(file),)))
    assert len(hub.hits) == 1


def patient(hub: Hub) -> SourceClient:
    """Return access that would wait for longer than any test does."""
    return SourceClient(access(hub).hubs, TransferPolicy(limits=Limits(read=60.0)))


@pytest.mark.parametrize("sink", ["registry", "layout"])
def test_the_first_failure_stops_the_others_and_is_the_one_that_is_told(
    hub: Hub, sink: str, tmp_path: Path
) -> None:
    files = [hub.add("org/repo", f"{n}.safetensors", SIZE, seed=n) for n in range(3)]
    hub.fault(*(HubFault("hang", f"{n}.safetensors", after=100, times=-1) for n in (0, 1)))
    hub.fault(HubFault("status", "2.safetensors", where="hub", status=410, times=-1))
    groups = [WeightLayerSpec((weight(each, model=each.name),)) for each in files]
    with Registry() as registry:
        push_them = functools.partial(push, hub, registry, *groups, how=patient(hub))
        keep_them = functools.partial(bake, groups, LayoutSink(tmp_path), patient(hub))
        begun = time.monotonic()
        with pytest.raises(SourceError, match=r"2\.safetensors .* is gone from"):
            (push_them if sink == "registry" else keep_them)()
        assert time.monotonic() - begun < 20
        assert_kept(registry)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_failure_also_wakes_who_waits_for_the_registry(hub: Hub) -> None:
    files = [hub.add("org/repo", f"{n}.safetensors", 5000, seed=n) for n in range(2)]
    hub.fault(HubFault("status", "1.safetensors", where="hub", status=410, times=-1))
    busy = Fault("status", "PATCH", times=-1, status=503, retry_after="60")
    begun = time.monotonic()
    with Registry(faults=[busy]) as registry, pytest.raises(SourceError, match="is gone from"):
        push(hub, registry, *(WeightLayerSpec((weight(each),)) for each in files))
    assert time.monotonic() - begun < 20
    assert_kept(registry)


def missing(number: int = 9) -> WeightLayerSpec:
    """Return a layer that fails at once: its file, a local one, is not there."""
    lost = {"kind": "local", "path": "/nowhere/lost.safetensors"}
    facts: dict[str, Any] = {
        "size": 5000,
        "sha256": "0" * 64,
        "source": "local:lost",
        "revision": None,
        "origin": lost,
    }
    return WeightLayerSpec(
        (WeightFile(model=f"m{number}", destination="checkpoints/lost.safetensors", **facts),)
    )


def test_a_failure_ends_the_wait_for_a_source_that_says_nothing(hub: Hub, file: HubFile) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, Registry() as registry:
        there = Hubs(huggingface=f"http://127.0.0.1:{silent.getsockname()[1]}")
        mute = SourceClient(there, TransferPolicy(limits=Limits(read=60.0)))
        begun = time.monotonic()
        with pytest.raises(SourceError, match="cannot be read"):
            push(hub, registry, WeightLayerSpec((weight(file),)), missing(), how=mute)
        assert time.monotonic() - begun < 2
        assert_kept(registry)


@pytest.mark.parametrize(("method", "most"), [("PUT", 3), ("PATCH", 7)])
def test_a_failure_ends_the_wait_for_a_registry_that_says_nothing(
    hub: Hub, file: HubFile, method: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body on its way gets a moment, since only the answer to it names the session to delete."""
    monkeypatch.setattr("podkiln.registry.transport._DROP_SECONDS", 1.0)
    late = hub.add("org/repo", "late.safetensors", SIZE)
    hub.fault(HubFault("hang", "late", after=SIZE // 2, times=-1))
    soon = SourceClient(access(hub).hubs, TransferPolicy(tries=1, limits=Limits(read=0.5)))
    mute = Fault("hang", method, seconds=20.0)
    groups = [WeightLayerSpec((weight(each, model=each.name),)) for each in (file, late)]
    begun = time.monotonic()
    with Registry(faults=[mute]) as registry, pytest.raises(SourceError, match="did not come"):
        push(hub, registry, *groups, how=soon, timeout=60.0)
    assert mute.times == 0
    assert time.monotonic() - begun < most


def test_layers_stand_back_for_those_that_began_earlier(hub: Hub, tmp_path: Path) -> None:
    files = [hub.add("org/repo", f"{n}.safetensors", 5000, seed=n) for n in range(3)]
    own, all_here = os.getpriority(os.PRIO_PROCESS, 0), threading.Barrier(3, timeout=10)
    seen: list[int] = []

    class Sink(LayoutSink):
        def take(self, content: BlobSource, on_progress: Progress) -> spec.Descriptor:
            all_here.wait()
            seen.append(os.getpriority(os.PRIO_PROCESS, 0) - own)
            return super().take(content, on_progress)

    bake(
        [WeightLayerSpec((weight(each, model=each.name),)) for each in files],
        Sink(tmp_path),
        access(hub),
        jobs=3,
    )
    assert sorted(seen) == [min(back, 19 - own) for back in (0, 4, 8)]  # 19 is the kernel's last
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_nothing_is_left_running(hub: Hub, file: HubFile) -> None:
    before = set(threading.enumerate())
    with Registry() as registry:
        push(hub, registry, WeightLayerSpec((weight(file),)))
        hub.fault(HubFault("status", where="hub", status=404, times=-1))
        with pytest.raises(SourceError):
            push(hub, registry, WeightLayerSpec((weight(file, name="x"),)))
        names = {thread.name.partition("_")[0] for thread in set(threading.enumerate()) - before}
    assert names & {"source", "bake"} == set()


def test_a_layout_takes_the_same_layers(hub: Hub, file: HubFile, tmp_path: Path) -> None:
    group, expected = WeightLayerSpec((weight(file),)), layer_bytes(file)
    (baked,) = bake([group], LayoutSink(tmp_path), access(hub))
    assert (tmp_path / "blobs" / baked.blob.digest.replace(":", "/")).read_bytes() == expected
    (again,) = bake([group], LayoutSink(tmp_path), access(hub), known={group.recipe: baked.blob.digest})
    assert (again.how, hub.served()) == ("existing", SIZE)
