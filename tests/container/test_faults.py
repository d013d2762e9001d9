"""What breaks while weights are baked into a real registry: the image is right every time, or there is none.

Debian's registry stands behind a proxy that plays faults at its edge; the hub plays those of the source. All
is random, and the same in each run. That registry (distribution 2.8) neither goes on with an upload whose
PATCH was cut nor deletes it, since only the answer to the PATCH names its new state: it begins anew, and
forgets the old one some day by itself. tests/unit/weights/test_bake.py plays registries that do go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import baked_variant
import pytest
import registries
import tiny_image
from hub_weights import access, weight
from servers.fault_proxy import FaultProxy
from servers.hub import Hub
from servers.hub_faults import Fault as HubFault
from servers.registry import Fault

from pod.net.http import Limits
from pod.net.transfer_policy import TransferPolicy
from podkiln.errors import IntegrityError, SourceError
from podkiln.lock import layers
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.oci.tar_layer import Entry, TarLayer
from podkiln.plan.weight_layers import WeightLayerSpec
from podkiln.registry import RegistryOptions, Repository, pull_manifest
from podkiln.weights.bake import BakeResult, bake
from podkiln.weights.sink import RegistrySink
from podkiln.weights.source import SourceClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers.hub_content import HubFile

TESTS = Path(__file__).resolve().parents[1]
MIB = 1 << 20
SIZE = 24 * MIB + 321
CUTS = 10
KILLS = 8
SETTINGS = RegistryOptions(attempts=CUTS + 2, backoff=0.0005, timeout=10.0, login=lambda _: None)
SOURCES = TransferPolicy(tries=CUTS + 2, backoff=0.01, backoff_limit=0.05, limits=Limits(read=5.0))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(storage: Path) -> Iterator[str]:
    with registries.serve(storage) as host:
        yield host


@pytest.fixture
def files(hub: Hub) -> list[HubFile]:
    return [hub.add("org/repo", f"{n}.safetensors", SIZE + n, seed=n) for n in range(2)]


def layer_of(file: HubFile) -> spec.Digest:
    content = bytes(file.content)
    tar = TarLayer((Entry(f"opt/models/checkpoints/{file.name}", len(content)),))
    return spec.digest_of(b"".join(tar.chunks(lambda _, offset: [content[offset:]])))


def push(host: str, hub: Hub, files: list[HubFile], **more: Any) -> list[BakeResult]:
    groups = [WeightLayerSpec((weight(file, model=file.name),)) for file in files]
    with Repository(Reference.parse(f"{host}/you/app"), SETTINGS, push=True) as repository:
        return bake(groups, RegistrySink(repository), SourceClient(access(hub).hubs, SOURCES), **more)


def kept(storage: Path) -> set[str]:
    """Return the digests of all blobs that a registry keeps, each hashed anew, and see that each is right."""
    blobs = list(storage.glob("**/blobs/sha256/*/*/data"))
    for blob in blobs:
        with blob.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == blob.parent.name
    return {f"sha256:{blob.parent.name}" for blob in blobs}


def sessions(storage: Path) -> list[Path]:
    """Return what a registry still keeps of uploads that were never closed."""
    return [file for file in storage.glob("**/_uploads/*/data") if file.is_file()]


def assert_right(storage: Path, baked: list[BakeResult], files: list[HubFile], *, cut: int = 0) -> None:
    """All layers are there, and nothing else: no wrong blob, and no upload but those that were cut."""
    wanted = [layer_of(file) for file in files]
    assert [each.blob.digest for each in baked] == wanted
    assert kept(storage) == set(wanted)
    assert len(sessions(storage)) <= cut


def lengths(seed: int, size: int) -> list[int]:
    """Return bytes between cuts at random offsets, in the order in which they come."""
    places = sorted(random.Random(seed).sample(range(1, size), CUTS))
    return [stop - start for start, stop in itertools.pairwise([0, *places])]


@pytest.mark.parametrize("ends", ["source", "registry", "both"])
def test_ten_cuts_at_random_offsets(
    ends: str, hub: Hub, files: list[HubFile], registry: str, storage: Path
) -> None:
    if ends != "registry":
        hub.fault(*(HubFault("reset", after=length) for length in lengths(0, SIZE)))
    cuts = [Fault("cut", "PATCH", after=length) for length in lengths(100, SIZE)]
    with FaultProxy(registry, *(cuts if ends != "source" else [])) as proxy:
        baked = push(proxy.host, hub, files[:1])
        assert proxy.spent
    assert not any(fault.times for fault in hub.script.faults)
    assert_right(storage, baked, files[:1], cut=0 if ends == "source" else CUTS)
    if ends == "source":
        assert len(proxy.asked) == 3  # POST, PATCH and PUT: the registry noticed nothing


def busy(status: int, times: int, method: str = "") -> Fault:
    return Fault("status", method, status=status, retry_after="0", times=times)


STORMS = {
    "429 everywhere": [busy(429, 6)],
    "429 and 503 to bodies": [busy(429, 3, "PATCH"), busy(503, 3, "PATCH")],
    "a second to wait": [Fault("status", "PATCH", status=429, retry_after="1")],
}


@pytest.mark.parametrize("storm", STORMS.values(), ids=STORMS.keys())
def test_storms_at_both_ends(
    storm: list[Fault], hub: Hub, files: list[HubFile], registry: str, storage: Path
) -> None:
    hub.fault(HubFault("status", where="hub", status=429, retry_after="0", times=3))
    for status in (503, 429):
        hub.fault(HubFault("status", status=status, retry_after="0", times=3))
    hub.fault(HubFault("reset", after=7 * MIB))
    with FaultProxy(registry, *(Fault(**vars(fault)) for fault in storm)) as proxy:
        baked = push(proxy.host, hub, files)
        assert proxy.spent
    assert not any(fault.times for fault in hub.script.faults)
    assert_right(storage, baked, files)


REFUSALS = {
    "416 to the streaming PATCH": [Fault("status", "PATCH", status=416)],
    "416 to the rest of it": [Fault("cut", "PATCH", after=5 * MIB), Fault("status", "PATCH", status=416)],
    "413 to the streaming PATCH": [Fault("status", "PATCH", status=413)],
    "no answer to the PATCH": [Fault("mute", "PATCH")],
    "no answer to the commit": [Fault("mute", "PUT")],
    "no answer to the first POST": [Fault("mute", "POST")],
}


@pytest.mark.parametrize("faults", REFUSALS.values(), ids=REFUSALS.keys())
def test_what_a_registry_does_not_take(
    faults: list[Fault], hub: Hub, files: list[HubFile], registry: str, storage: Path
) -> None:
    with FaultProxy(registry, *(Fault(**vars(fault)) for fault in faults)) as proxy:
        baked = push(proxy.host, hub, files[:1])
        patches = [path for method, path in proxy.asked if method == "PATCH"]
    if any(fault.status in (413, 416) for fault in faults):
        assert len(patches) > 5  # chunks
    assert_right(storage, baked, files[:1], cut=sum(fault.kind in ("cut", "mute") for fault in faults))


EXPIRIES = {
    "at all": [Fault("expire", method) for method in ("HEAD", "POST", "PATCH", "PUT")],
    "and a cut": [Fault("cut", "PATCH", after=9 * MIB), Fault("expire", "PATCH"), Fault("expire", "GET")],
}


@pytest.mark.parametrize("faults", EXPIRIES.values(), ids=EXPIRIES.keys())
def test_a_token_expires_in_mid_upload(
    faults: list[Fault], hub: Hub, files: list[HubFile], registry: str, storage: Path
) -> None:
    with FaultProxy(registry, *(Fault(**vars(fault)) for fault in faults), tokens=True) as proxy:
        baked = push(proxy.host, hub, files[:1])
        assert len(proxy.valid) > 0
        assert next(proxy.numbers) > 1  # tokens that were given
    assert_right(storage, baked, files[:1], cut=sum(fault.kind == "cut" for fault in faults))


def test_what_is_given_up_is_deleted_at_the_registry(
    hub: Hub, files: list[HubFile], registry: str, storage: Path
) -> None:
    """A wrong file beside a right one that is slow: neither is there afterwards, nor half of one."""
    hub.fault(HubFault("flip", "0.safetensors", after=SIZE // 2, times=-1))
    hub.fault(HubFault("rate", "1.safetensors", rate=2 * MIB, times=-1))
    begun = time.monotonic()
    with pytest.raises(IntegrityError, match=r"0\.safetensors .* is locked"):
        push(registry, hub, files)
    assert time.monotonic() - begun < 8
    assert kept(storage) == set()
    assert sessions(storage) == []


def test_what_is_gone_at_the_source_leaves_nothing(
    hub: Hub, files: list[HubFile], registry: str, storage: Path
) -> None:
    hub.fault(HubFault("reset", after=9 * MIB))
    hub.fault(HubFault("status", status=404, skip=1, times=-1))
    with pytest.raises(SourceError, match="is not there"):
        push(registry, hub, files[:1])
    assert kept(storage) == set()
    assert sessions(storage) == []


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout with a small runtime."""
    return tiny_image.build(tmp_path_factory.mktemp("runtime"))


def start(described: Path, runtime: Path, image: str, hub: Hub, *spool: str) -> subprocess.Popen[str]:
    """Start to bake and push in a process of its own, as the main job does once BuildKit is done."""
    argv = [sys.executable, str(TESTS / "publish_process.py"), str(described), str(runtime), image, *spool]
    environment = {**os.environ, "HF_ENDPOINT": hub.url}
    return subprocess.Popen(
        argv,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("spooled", [False, True], ids=["streamed", "spooled"])
def test_kill_9_at_random_moments_then_the_same_again(
    spooled: bool, hub: Hub, runtime: Path, registry: str, storage: Path, tmp_path: Path
) -> None:
    """No wrong blob is ever there; the last run makes the right image and leaves nothing on the disk."""
    described, spool = baked_variant.describe(tmp_path, baked_variant.serve(hub)), tmp_path / "spool"
    hub.rate = 64 * MIB  # bytes/s for each connection: the bake takes about as long as the moments reach
    more = [str(spool)] if spooled else []
    image, rng, killed = f"{registry}/you/app:v1", random.Random(13 + spooled), 0
    for _ in range(KILLS // 2):
        with start(described, runtime, image, hub, *more) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.2, 1.9))
            process.kill()
        killed += process.returncode == -signal.SIGKILL
        memory = tmp_path / "bakes.locks" / "layers.json"
        assert not memory.exists() or {*layers.read(memory).values()} <= kept(storage)
        if process.returncode == 0:  # it was faster: all begins anew elsewhere
            image = image.replace("/app", "/app1")
        if process.returncode == 0 or rng.random() < 0.5:  # and half of the others know nothing either
            shutil.rmtree(memory.parent, ignore_errors=True)
    with start(described, runtime, image, hub, *more) as process:
        out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    told = json.loads(out)
    assert killed > KILLS // 4
    assert {layer["digest"] for layer in told["layers"]} < kept(storage)
    found, data = pull_manifest(Reference.parse(image))
    assert found.digest == told["digest"] == spec.digest_of(data)
    assert not spooled or list(spool.iterdir()) == []


def test_ctrl_c_while_a_server_says_nothing(
    hub: Hub, runtime: Path, registry: str, storage: Path, tmp_path: Path
) -> None:
    """It ends at once, not when the server's time is over, and the upload that was begun is deleted."""
    described = baked_variant.describe(tmp_path, baked_variant.serve(hub))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub.url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with start(described, runtime, f"{registry}/you/app:v1", hub) as process:
            waiting, _ = silent.accept()
            with waiting:
                time.sleep(0.3)
                begun = time.monotonic()
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=20)
                assert time.monotonic() - begun < 3
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert kept(storage) == set()
    assert sessions(storage) == []
