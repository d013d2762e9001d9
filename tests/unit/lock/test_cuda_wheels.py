"""The CUDA of the locked wheels against the one that is described."""

from __future__ import annotations

import json

import pytest

from podkiln.config import cuda_releases, variant
from podkiln.config.document import ROOT
from podkiln.errors import DescriptionError
from podkiln.lock import cuda_wheels, drift, locations, schema
from podkiln.lock.schema import Lock

RUNTIMES = [
    variant.load("lazy", None if name == "13.0" else name, platform)
    for name in cuda_releases.names()
    for platform in cuda_releases.load(name).platforms
]
IDS = [each.spec.runtime.name for each in RUNTIMES]


def lock_of(described: variant.LoadedVariant) -> Lock:
    folder = locations.LOCKS / described.spec.runtime.name
    return Lock(folder, schema.read_runtime(folder), {})


@pytest.mark.parametrize("described", RUNTIMES, ids=IDS)
def test_each_shipped_runtime_is_locked_to_its_cuda(described: variant.LoadedVariant) -> None:
    lock = lock_of(described)
    assert drift.find_drift(described, lock) == []
    pins = lock.pins()
    assert [f"{name}=={pins[name]}" for name in ("torch", "torchvision", "torchaudio")] == list(
        described.release.torch
    )
    wheel = cuda_wheels.find(pins)
    assert wheel
    assert wheel.release == described.spec.runtime.cuda


@pytest.mark.parametrize("described", RUNTIMES[1:], ids=IDS[1:])
def test_what_cuda_does_not_concern_is_locked_alike(described: variant.LoadedVariant) -> None:
    """So nothing else changes with the CUDA, and layers can be shared where the platform is."""
    own, first = lock_of(described), lock_of(RUNTIMES[0])
    pins, before = own.pins(), first.pins()
    concerned = {
        name for name in {*pins, *before} if name.startswith(("nvidia-", "cuda-", "torch", "triton"))
    }
    assert {name: pins.get(name) for name in {*pins, *before} - concerned} == {
        name: before.get(name) for name in {*pins, *before} - concerned
    }
    if described.platform == "linux/amd64":
        shared = ("libraries", "comfyui-media", "comfyui")
        digests = [{each.name: each.sha256 for each in lock.runtime.installed} for lock in (own, first)]
        assert all(digests[0][name] == digests[1][name] for name in (*shared, "jupyter"))


@pytest.mark.parametrize("described", RUNTIMES, ids=IDS)
def test_what_has_a_native_wheel_is_locked_to_it(described: variant.LoadedVariant) -> None:
    """The fixture has what PyPI offers beside it on 2026-11-27: comfy-aimdo's is without its library."""
    pure = json.loads((ROOT / "tests" / "fixtures" / "pure_wheels.json").read_text())
    lock = lock_of(described)
    text = "".join((lock.folder / layer.file).read_text() for layer in lock.runtime.installed)
    assert len(pure) == 9
    assert [name for name, sha256 in pure.items() if sha256 in text] == []


@pytest.mark.parametrize("described", RUNTIMES, ids=IDS)
def test_no_layer_is_larger_than_hosts_like_to_pull(described: variant.LoadedVariant) -> None:
    """A wheel is compressed about as well as a layer, and holds what is left out of that besides."""
    sizes = {each.name: each.wheel_bytes for each in lock_of(described).runtime.python_layers}
    assert all(size and size <= 1_500_000_000 for size in sizes.values()), sizes


@pytest.mark.parametrize(
    ("pins", "says"),
    [
        (
            {"torch": "2.10.0", "nvidia-cuda-runtime-cu12": "12.8.90"},
            (
                r"runtime.cuda: 13.0 is described, and the wheels are of CUDA 12.8 "
                r"\(nvidia-cuda-runtime-cu12 12.8.90\)\."
            ),
        ),
        (
            {"torch": "2.15.0", "nvidia-cuda-runtime": "13.2.75"},
            r"the wheels are of CUDA 13.2 \(nvidia-cuda-runtime 13.2.75\)\.",
        ),
        ({"torch": "2.10.0"}, r"13.0 is described, and torch 2.10.0 for linux/amd64 comes without CUDA\."),
    ],
)
def test_wheels_of_another_cuda_are_refused(pins: dict[str, str], says: str) -> None:
    with pytest.raises(DescriptionError, match=says) as refused:
        cuda_wheels.require(RUNTIMES[0], pins)
    assert refused.value.hint
    assert "torch==2.11.0" in refused.value.hint


@pytest.mark.parametrize("pins", [{}, {"numpy": "2"}, {"torch": "2.12.1", "nvidia-cuda-runtime": "13.0.96"}])
def test_other_wheels_are_let_be(pins: dict[str, str]) -> None:
    assert cuda_wheels.contradiction(RUNTIMES[0], pins) is None


def test_a_lock_of_another_cuda_has_come_apart() -> None:
    """Its own release is described in each: only a name of one's own can lead to the other's lock."""
    first = next(each for each in RUNTIMES if each.cuda == "12.8")
    found = drift.find_drift(RUNTIMES[0], lock_of(first))
    assert (
        "runtime.cuda is 13.0, and the wheels are of CUDA 12.8 (nvidia-cuda-runtime-cu12 12.8.90)." in found
    )
