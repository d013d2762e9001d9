"""A variant's CUDA release: which it is, and what follows from it for the rest of the description."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pod.hardware.compatibility import numbers
from podkiln.config import cuda_releases, document
from podkiln.config.cuda_releases import AMD64, runtime_name
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from podkiln.config.document import Document
    from podkiln.config.variant import LoadedVariant

_CUDA = ("runtime", "cuda")


def apply(
    chain: tuple[Document, ...], data: dict[str, Any], asked: str | None
) -> tuple[tuple[Document, ...], dict[str, Any]]:
    """Put a variant's merged data above what its CUDA release says; returns the files and the data then.

    `asked` is what --cuda names. Data that is not of the right shape stays as it is: parsing it says so.
    Raises DescriptionError for a release that there is not.
    """
    runtime = data.get("runtime")
    if isinstance(runtime, dict) and runtime.get("name") is None:  # another release was named below
        data = {**data, "runtime": (runtime := {key: runtime[key] for key in runtime if key != "name"})}
    described = runtime.get("cuda") if isinstance(runtime, dict) else None
    chosen = asked or described
    if not isinstance(runtime, dict) or chosen is None:
        return chain, data
    owner = next((each for each in chain if each.has(_CUDA)), chain[0])
    if not isinstance(chosen, str):
        raise owner.error(_CUDA, f"expected text, found {shown(str(chosen))}: write it in quotes.")
    if chosen not in cuda_releases.names():
        what = f"there is no CUDA {shown(chosen)} in variants/cuda."
        raise owner.error(_CUDA, what, hint=f"There are: {', '.join(cuda_releases.names())}.")
    below = {"runtime": cuda_releases.load(chosen).runtime}
    merged = document.merge(below, data)
    merged["runtime"] = {**merged["runtime"], "cuda": chosen}
    _fill_in(merged, renamed=described not in (None, chosen))
    return (*chain, cuda_releases.file(chosen)), merged


def _fill_in(data: dict[str, Any], *, renamed: bool) -> None:
    """Say what the description leaves to its CUDA release. `renamed`: --cuda names another than it does."""
    runtime = data["runtime"]
    release = cuda_releases.load(runtime["cuda"])
    platforms = data.get("platforms")
    platform = platforms[0] if isinstance(platforms, list) and platforms else AMD64
    comfyui = runtime.get("comfyui")
    version = comfyui.get("version") if isinstance(comfyui, dict) else None
    if "name" not in runtime and isinstance(version, str) and isinstance(platform, str):
        runtime["name"] = runtime_name(version, release.cuda, platform)
    elif renamed and isinstance(runtime.get("name"), str):
        runtime["name"] += f"-cuda-{release.cuda}"
    runtime.setdefault("driver", release.driver.full)
    support = release.platforms.get(platform) if isinstance(platform, str) else None  # type: ignore[call-overload]
    if support and isinstance(runtime.get("python"), dict):
        runtime["python"] = {"platform": support.wheels, **runtime["python"]}


def check(described: LoadedVariant) -> None:
    """See that platform and driver go with the CUDA release. Raises DescriptionError."""
    spec, release, platform = described.spec, described.release, described.platform
    if platform not in release.platforms:
        able = cuda_releases.of_platform(platform)
        raise described.error(
            ("platforms",),
            f"torch has no CUDA {release.cuda} for {platform}.",
            hint=f"Take another CUDA for it ({', '.join(able)}), or {' or '.join(release.platforms)}.",
        )
    machine = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}[platform]
    if not spec.runtime.python.platform.startswith(f"{machine}-"):
        raise described.error(
            ("runtime", "python", "platform"),
            f"wheels for {spec.runtime.python.platform} do not run on {platform}, which `platforms` names.",
            hint="Leave it out: `platforms` says it.",
        )
    if numbers(spec.runtime.driver) < numbers(release.driver.full):
        raise described.error(
            ("runtime", "driver"),
            f"CUDA {release.cuda} needs driver {release.driver.full}, and {spec.runtime.driver} is older.",
            hint=f"Leave it out. With {release.driver.least} or newer, a pod starts all the same, and warns.",
        )
