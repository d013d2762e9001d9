"""What an image's CUDA comes to: drivers, cards, limits, and what was never tried. Pure. Sizes are bytes."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any, Final

from podkiln.config import comfyui_flags, cuda_releases
from podkiln.lock import cuda_wheels
from podkiln.util.console import GB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podkiln.config.catalog import VariantModel
    from podkiln.config.cuda_releases import CudaRelease, Limit
    from podkiln.config.model import Model
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.schema import Lock

LARGEST_LAYER: Final = 1_500_000_000
"""What a Python layer should not exceed: hosts pull three layers at a time, and wait for the largest."""


def architectures(described: LoadedVariant, lock: Lock) -> tuple[str, ...] | None:
    """Return what the locked torch has machine code for; None where that is not recorded."""
    return comfyui_flags.architectures(lock.pins().get("torch"), described.spec.runtime.cuda)


def limits(described: LoadedVariant, lock: Lock) -> tuple[Limit, ...]:
    """Return what does not work with this CUDA as it does with others, of what the image has."""
    names = lock.python_packages()
    return tuple(
        each
        for each in described.release.limits
        if any(fnmatch.fnmatchcase(name, glob) for glob in each.packages for name in names)
    )


def concerned(limit: Limit, model: Model) -> list[str]:
    """Return in which precisions of a limit a model's files are."""
    wanted = {file.precision for file in model.wanted}
    return [precision for precision in limit.precisions if precision in wanted]


def as_json(described: LoadedVariant, lock: Lock) -> dict[str, Any]:
    """Return it for scripts."""
    found = architectures(described, lock)
    wheel = cuda_wheels.find(lock.pins())
    return {
        "version": described.spec.runtime.cuda,
        "wheel": str(wheel) if wheel else None,
        "torch": lock.pins().get("torch"),
        "driver": described.spec.runtime.driver,
        "least_driver": described.release.driver.least,
        "architectures": list(found) if found else None,
        "limits": [each.says for each in limits(described, lock)],
        "untried": described.release.platforms[described.platform].untried,
    }


def for_pods(described: LoadedVariant, lock: Lock) -> dict[str, Any]:
    """Return what a pod has to know: this image's CUDA, and the others that the same image comes for."""
    own = described.spec.runtime.cuda
    found = architectures(described, lock)
    others = [cuda_releases.load(name) for name in cuda_releases.of_platform(described.platform)]
    return {
        "version": own,
        "driver": described.spec.runtime.driver,
        "least_driver": described.release.driver.least,
        "architectures": list(found) if found else None,
        "limits": [each.says for each in limits(described, lock)],
        "others": [_other(each) for each in others if each.cuda != own],
    }


def _other(release: CudaRelease) -> dict[str, Any]:
    """Return which drivers and cards another CUDA is for, going by the torch that is its own."""
    torch = next((line.partition("==")[2] for line in release.torch if line.startswith("torch==")), None)
    found = comfyui_flags.architectures(torch, release.cuda)
    return {
        "version": release.cuda,
        "least_driver": release.driver.least,
        "architectures": list(found) if found else None,
    }


def sentence(described: LoadedVariant, lock: Lock) -> str:
    """Say which drivers and cards the image is for."""
    driver, found = described.release.driver, architectures(described, lock)
    cards = f"; cards: {', '.join(found)}" if found else ""
    return (
        f"CUDA {described.spec.runtime.cuda} on {described.platform}: NVIDIA driver "
        f"{described.spec.runtime.driver} or newer, with a warning from {driver.least}{cards}"
    )


def notes(described: LoadedVariant, lock: Lock, offered: Sequence[VariantModel]) -> Iterator[str]:
    """Say what does not work with this CUDA, what was never tried, and which layers are too large."""
    title = f"CUDA {described.spec.runtime.cuda}"
    for limit in limits(described, lock):
        models = [offer.id for offer in offered if concerned(limit, offer.model)]
        yield f"{title}: {limit.says}." + (f" That concerns {', '.join(models)}." if models else "")
    if untried := described.release.platforms[described.platform].untried:
        yield f"{title} on {described.platform}: {untried}."
    for layer in lock.runtime.python_layers:
        if layer.wheel_bytes and layer.wheel_bytes > LARGEST_LAYER:
            yield (
                f"the wheels of the Python layer {layer.name} come to {layer.wheel_bytes / GB:.1f} GB: above "
                f"{LARGEST_LAYER / GB:.1f} GB, hosts wait for one layer; split it in runtime.python.layers."
            )
