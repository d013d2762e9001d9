"""What registries take: one file each in variants/registries/, asked by the plan before anything moves."""

from __future__ import annotations

import fnmatch
from functools import cache
from typing import Annotated

from pydantic import Field

from podkiln import document
from podkiln.document import Strict
from podkiln.variant import SHIPPED

FOLDER = SHIPPED / "registries"
# Bytes per second: what a hosted CI runner sends, for reckoning with limits in time.
UPLOAD_RATE = 40_000_000
Positive = Annotated[int, Field(gt=0)]
_GB = 10**9


class Registry(Strict):
    """One registry's limits; what is not known does not limit."""

    host: str = Field(description="What the image's name begins with; * stands for part of a host name.")
    layer_bytes: Positive | None = None
    upload_seconds: Positive | None = None
    source: str


def find(host: str) -> Registry | None:
    """Return the limits of a host; None for one that nothing is known of. Raises DescriptionError."""
    return next((each for each in _load() if fnmatch.fnmatchcase(host, each.host)), None)


def refusal(host: str, what: str, size: int) -> str | None:
    """Return why a registry will not take a layer of so many bytes, in one sentence; None when it will."""
    limits = find(host)
    if limits is None:
        return None
    if limits.layer_bytes and size > limits.layer_bytes:
        return (
            f"{what} is {size / _GB:.1f} GB, and {host} takes layers of at most "
            f"{limits.layer_bytes / _GB:.1f} GB ({limits.source})"
        )
    seconds = size / UPLOAD_RATE
    if limits.upload_seconds and seconds > limits.upload_seconds:
        return (
            f"{what} takes {seconds:.0f} s at {UPLOAD_RATE / 10**6:.0f} MB/s, and {host} ends uploads after "
            f"{limits.upload_seconds} s ({limits.source})"
        )
    return None


@cache
def _load() -> tuple[Registry, ...]:
    return tuple(document.load(path).parse(Registry) for path in sorted(FOLDER.glob("*.yaml")))
