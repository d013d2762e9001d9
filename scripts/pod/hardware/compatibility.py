"""Whether there is a card to use, and whether the driver and it can run this image's torch. Pure.

torch's wheels hold machine code for some architectures: code for sm_XY runs on cards of the same X and at
least that Y (CUDA C++ Programming Guide, Binary Compatibility), PTX for compute_XY on all later ones.
"""

from __future__ import annotations

import re

from pod.util.dataclass import dataclass
from pod.util.finding import FATAL, WARNING, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pod.hardware.gpu import Detection, Gpu

_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)([a-z]?)")


@dataclass(frozen=True)
class OtherCuda:
    """Another CUDA that the same image comes for, with its own tag."""

    version: str
    least_driver: str
    architectures: tuple[str, ...] | None


@dataclass(frozen=True)
class Cuda:
    """What the image's CUDA needs and lacks.

    Attributes:
        version: The release.
        driver: The oldest driver that has all of it.
        least_driver: The oldest that loads it.
        architectures: Those that the image's torch was built for, such as sm_90; None for unknown.
        limits: What does not work as it does with other releases, a phrase each.
        others: Where else the image may run.
    """

    version: str
    driver: str
    least_driver: str
    architectures: tuple[str, ...] | None = None
    limits: tuple[str, ...] = ()
    others: tuple[OtherCuda, ...] = ()


def examine(detection: Detection, cuda: Cuda | None) -> list[Finding]:
    """Return what keeps torch from using the GPU that counts, or from having one although it should."""
    if detection.gpu is None:
        return [Finding(FATAL, "gpu", detection.unusable)] if detection.unusable else []
    return [*_driver(detection.gpu, cuda), *_card(detection, cuda)] if cuda else []


def _driver(gpu: Gpu, cuda: Cuda) -> Iterator[Finding]:
    """A driver of an older branch cannot load this CUDA at all; one of the same branch mostly can.

    Source: CUDA Compatibility, minor version compatibility.
    """
    if not gpu.driver or numbers(gpu.driver) >= numbers(cuda.driver):
        return
    what = f"the NVIDIA driver here is {gpu.driver}, and this image's CUDA needs {cuda.driver} or newer"
    if numbers(gpu.driver) < numbers(cuda.least_driver):
        fits = [each for each in cuda.others if _serves(each, gpu)]
        yield Finding(FATAL, "driver", f"{what}: rent a machine with a newer driver{_or(fits)}")
    else:
        yield Finding(
            WARNING, "driver", f"{what}: some of it may fail; a machine with a newer driver is safer"
        )


def _serves(other: OtherCuda, gpu: Gpu) -> bool:
    """Whether driver and card, as far as they are known, do for another CUDA."""
    capability = numbers(gpu.compute_cap or "")
    driver = not gpu.driver or numbers(gpu.driver) >= numbers(other.least_driver)
    return driver and (not other.architectures or not capability or covers(other.architectures, capability))


def _or(others: Sequence[OtherCuda]) -> str:
    return f", or take the image with cuda-{others[0].version} in its tag" if others else ""


def _card(detection: Detection, cuda: Cuda) -> Iterator[Finding]:
    gpu, architectures = detection.gpu, cuda.architectures
    capability = numbers(gpu.compute_cap) if gpu and gpu.compute_cap else ()
    if gpu is None or not architectures or len(capability) < 2 or covers(architectures, capability):  # noqa: PLR2004
        return
    name = f"sm_{capability[0]}{capability[1]}"
    oldest = min(each for each in map(_parse, architectures) if each)[0]
    cure = "rent a newer card" if capability < oldest else "take an image with a newer torch"
    fits = _or([each for each in cuda.others if each.architectures and _serves(each, gpu)])
    others = "; other cards in this pod may do" if detection.visible > 1 else ""
    yield Finding(
        FATAL if detection.visible == 1 else WARNING,
        "card",
        f"{gpu} is {name} (compute capability {gpu.compute_cap}), and this image's torch has code for "
        f"{', '.join(architectures)} only: {cure}{fits}{others}",
    )


def covers(architectures: Sequence[str], capability: tuple[int, ...]) -> bool:
    """Whether code for one of the architectures runs on a card of this compute capability."""
    for one in architectures:
        if not (parsed := _parse(one)):
            continue
        version, ptx, exact = parsed
        if capability == version or (not exact and ptx and capability >= version):
            return True
        if not exact and not ptx and capability[0] == version[0] and capability >= version:
            return True
    return False


def _parse(architecture: str) -> tuple[tuple[int, int], bool, bool] | None:
    """Return version, whether it is PTX, and whether it runs on exactly that version (sm_90a)."""
    match = _ARCHITECTURE.fullmatch(architecture)
    return ((int(match[2]), int(match[3])), match[1] == "compute", match[4] == "a") if match else None


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, for comparing."""
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
