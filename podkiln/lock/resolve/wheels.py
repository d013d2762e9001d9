"""The wheels of a resolution: read from uv's pylock.toml, and chosen for an interpreter on a platform."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from podkiln.errors import LockError

if TYPE_CHECKING:
    from collections.abc import Iterable

_OLDEST_GLIBC = {"x86_64": 5, "aarch64": 17}  # PEP 600: the first manylinux of each machine
_LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


@dataclass(frozen=True)
class Wheel:
    """One locked wheel; its size in bytes, where the index tells it."""

    package: str
    version: str
    url: str
    sha256: str
    size: int | None = None

    @property
    def filename(self) -> str:
        """The wheel's file name, which holds its tags."""
        return unquote(PurePosixPath(urlsplit(self.url).path).name)


def platform_tags(version: str, platform: str) -> Iterable[Tag]:
    """Return the wheel tags that fit an interpreter on a platform, the best first (PEP 425, PEP 600)."""
    parsed = re.fullmatch(r"(x86_64|aarch64)-manylinux_2_(\d+)", platform)
    if parsed is None:
        raise LockError(f"{platform!r} is not a platform that podkiln knows.", hint="x86_64-manylinux_2_28")
    machine, newest = parsed[1], int(parsed[2])
    platforms: list[str] = []
    for minor in range(newest, _OLDEST_GLIBC[machine] - 1, -1):
        platforms.append(f"manylinux_2_{minor}_{machine}")
        platforms += [f"{_LEGACY[minor]}_{machine}"] if minor in _LEGACY else []
    platforms.append(f"linux_{machine}")
    numbers = tuple(int(part) for part in version.split(".")[:2])
    yield from cpython_tags(numbers, platforms=platforms)
    yield from compatible_tags(numbers, "cp" + "".join(map(str, numbers)), platforms)


def of_package(package: dict[str, Any]) -> list[Wheel]:
    """Return the wheels that a pylock.toml has of a package."""
    return [
        Wheel(
            package["name"],
            package["version"],
            each.get("url") or each.get("path", ""),
            each["hashes"].get("sha256", ""),
            each.get("size"),
        )
        for each in package.get("wheels", ())
    ]


def best(package: dict[str, Any], order: dict[Tag, int]) -> Wheel:
    """Choose among a release's wheels as installers do: by rank of the tags, then by build number."""
    ranked = []
    for wheel in of_package(package):
        _, _, build, tags = parse_wheel_filename(wheel.filename)
        fitting = [order[tag] for tag in tags if tag in order]
        if fitting and wheel.sha256:
            ranked.append((-min(fitting), build, wheel))
    if not ranked:
        name, version = package["name"], package["version"]
        raise LockError(f"The package {name} {version} has no wheel with a sha256 for this platform.")
    return max(ranked, key=lambda each: each[:2])[2]
