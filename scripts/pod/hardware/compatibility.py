"""Whether there is a card to use, and whether the driver and it can run this image's torch. Pure.

torch's wheels hold machine code for some architectures: code for sm_XY runs on cards of the same X and at
least that Y (CUDA C++ Programming Guide, Binary Compatibility), PTX for compute_XY on all later ones.
"""

from __future__ import annotations

import re

from pod.util.finding import FATAL, WARNING, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pod.hardware.gpu import Detection, Gpu

_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)([a-z]?)")


def examine(detection: Detection, driver: str | None, architectures: Sequence[str] | None) -> list[Finding]:
    """Return what keeps torch from using the GPU that counts, or from having one although it should.

    Args:
        detection: The card.
        driver: The oldest driver that this torch's CUDA works with.
        architectures: Those that this torch was built for, such as sm_90.
    """
    if detection.gpu is None:
        return [Finding(FATAL, "gpu", detection.unusable)] if detection.unusable else []
    return [*_driver(detection.gpu, driver), *_card(detection, architectures)]


def _driver(gpu: Gpu, needed: str | None) -> Iterator[Finding]:
    """A driver of an older branch cannot load this CUDA at all; an older one of the same branch mostly can.

    Source: CUDA Compatibility, minor version compatibility.
    """
    if not needed or not gpu.driver or numbers(gpu.driver) >= numbers(needed):
        return
    what = f"the NVIDIA driver here is {gpu.driver}, and this image's CUDA needs {needed} or newer"
    if numbers(gpu.driver)[:1] < numbers(needed)[:1]:
        yield Finding(FATAL, "driver", f"{what}: rent a machine with a newer driver")
    else:
        yield Finding(
            WARNING, "driver", f"{what}: some of it may fail; a machine with a newer driver is safer"
        )


def _card(detection: Detection, architectures: Sequence[str] | None) -> Iterator[Finding]:
    gpu = detection.gpu
    capability = numbers(gpu.compute_cap) if gpu and gpu.compute_cap else ()
    if gpu is None or not architectures or len(capability) < 2 or covers(architectures, capability):  # noqa: PLR2004
        return
    name = f"sm_{capability[0]}{capability[1]}"
    oldest = min(each for each in map(_parse, architectures) if each)[0]
    cure = "rent a newer card" if capability < oldest else "take an image with a newer torch"
    others = "; other cards in this pod may do" if detection.visible > 1 else ""
    yield Finding(
        FATAL if detection.visible == 1 else WARNING,
        "card",
        f"{gpu} is {name} (compute capability {gpu.compute_cap}), and this image's torch has code for "
        f"{', '.join(architectures)} only: {cure}{others}",
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
