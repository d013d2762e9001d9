"""What registries take: one file each in variants/registries/, asked by the plan before anything moves.

Sizes are bytes, rates bytes per second of one upload.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import Field

from podkiln.config import document
from podkiln.config.document import StrictModel
from podkiln.config.fields import Text
from podkiln.config.variant import SHIPPED
from podkiln.options import UPLOAD_RATE
from podkiln.util import console
from podkiln.util.console import GB

FOLDER = SHIPPED / "registries"
Positive = Annotated[int, Field(gt=0)]


class Registry(StrictModel):
    """One registry's limits; what is not known does not limit."""

    name: Text = Field(description="What people call it.")
    host: Text = Field(description="What the image's name begins with; * stands for part of a host name.")
    layer_bytes: Positive | None = None
    upload_seconds: Positive | None = None
    source: Text

    def takes(self, size: int, rate: int = UPLOAD_RATE) -> bool:
        """Return whether a layer of so many bytes keeps within all that is known."""
        small = self.layer_bytes is None or size <= self.layer_bytes
        return small and (self.upload_seconds is None or size / rate <= self.upload_seconds)


@dataclass(frozen=True)
class LimitCheck:
    """The largest layer (bytes) and the limits of its registry. `limits`: None when none are known."""

    host: str
    largest: int
    rate: int
    limits: Registry | None

    @property
    def seconds(self) -> float:
        """How long that layer's upload takes."""
        return self.largest / self.rate

    def __str__(self) -> str:
        most = self.limits and self.limits.layer_bytes
        longest = self.limits and self.limits.upload_seconds
        size = console.size(self.largest) + (f" of at most {console.size(most)}" if most else "")
        time = f"{self.seconds:.0f} s" + (f" of at most {longest} s" if longest else "")
        known = "" if self.limits else "; its limits are not known"
        return f"{self.host}: the largest layer has {size}, {time} at {self.rate / 10**6:g} MB/s{known}"

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {
            "host": self.host,
            "largest_layer_bytes": self.largest,
            "most_layer_bytes": self.limits and self.limits.layer_bytes,
            "upload_seconds": round(self.seconds),
            "most_upload_seconds": self.limits and self.limits.upload_seconds,
            "bytes_per_second": self.rate,
            "source": self.limits and self.limits.source,
        }


def find_limits(host: str) -> Registry | None:
    """Return the limits of a host; None for one that nothing is known of. Raises DescriptionError."""
    return next((each for each in load() if fnmatch.fnmatchcase(host, each.host)), None)


def fit(host: str, largest: int, rate: int = UPLOAD_RATE) -> LimitCheck:
    """Compare the largest layer with the limits of a host."""
    return LimitCheck(host, largest, rate, find_limits(host))


def taking(size: int, rate: int = UPLOAD_RATE) -> list[Registry]:
    """Return the known registries that take a layer of so many bytes, those that take the largest first."""
    found = [each for each in load() if each.takes(size, rate)]
    return sorted(found, key=lambda each: -(each.layer_bytes or 0))


def refusal(host: str, what: str, size: int, rate: int = UPLOAD_RATE) -> str | None:
    """Return why a registry will not take a layer of so many bytes, in one sentence; None when it will."""
    limits = find_limits(host)
    if limits is None or limits.takes(size, rate):
        return None
    if limits.layer_bytes and size > limits.layer_bytes:
        return (
            f"{what} is {size / GB:.1f} GB, and {host} takes layers of at most "
            f"{limits.layer_bytes / GB:.1f} GB ({limits.source})."
        )
    return (
        f"{what} takes {size / rate:.0f} s at {rate / 10**6:.0f} MB/s, and {host} ends uploads after "
        f"{limits.upload_seconds} s ({limits.source})."
    )


@cache
def load() -> tuple[Registry, ...]:
    """Return the registries that something is known of. Raises DescriptionError."""
    return tuple(document.load(path).parse(Registry) for path in document.files(FOLDER))
