"""Which CUDA the locked wheels are of: read off the wheel of CUDA's own runtime library.

Its version is that of CUDA: nvidia-cuda-runtime 13.0.96, or nvidia-cuda-runtime-cu12 12.8.90 up to CUDA 12.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podkiln.config.variant import LoadedVariant

_RUNTIME = re.compile(r"nvidia-cuda-runtime(-cu[0-9]+)?")
_RELEASE = re.compile(r"[0-9]+\.[0-9]+")


class CudaWheel(NamedTuple):
    """The wheel that says which CUDA torch brings."""

    package: str
    version: str

    @property
    def release(self) -> str:
        """The CUDA release: 12.8 of 12.8.90."""
        found = _RELEASE.match(self.version)
        return found[0] if found else self.version

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


def find(pins: Mapping[str, str]) -> CudaWheel | None:
    """Return it, of versions by package; None where none is pinned."""
    return next((CudaWheel(*pin) for pin in sorted(pins.items()) if _RUNTIME.fullmatch(pin[0])), None)


def contradiction(described: LoadedVariant, pins: Mapping[str, str]) -> str | None:
    """Return what the wheels are instead of the CUDA that is described; None where all is well."""
    wheel, torch = find(pins), pins.get("torch")
    if wheel and wheel.release != described.spec.runtime.cuda:
        return f"the wheels are of CUDA {wheel.release} ({wheel})"
    if torch and wheel is None:
        return f"torch {torch} for {described.platform} comes without CUDA"
    return None


def require(described: LoadedVariant, pins: Mapping[str, str]) -> None:
    """Raise DescriptionError where what was resolved is of another CUDA than is described."""
    if found := contradiction(described, pins):
        wanted = ", ".join(described.release.torch)
        raise described.error(
            ("runtime", "cuda"),
            f"{described.spec.runtime.cuda} is described, and {found}.",
            hint=f"CUDA {described.spec.runtime.cuda} goes with {wanted}: leave torch unpinned in the "
            "requirements, or name the CUDA of its wheels.",
        )
