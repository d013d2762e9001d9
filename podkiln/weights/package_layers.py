"""Layers of packages: .debs and wheels, streamed into a registry as weights are, checked by sha256."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from podkiln.errors import LockError, SourceError
from podkiln.plan.weight_layers import WeightFile, WeightLayerSpec
from podkiln.weights.source import SourceClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podkiln.lock.apt import Package
    from podkiln.lock.resolve.wheels import Wheel
    from podkiln.weights.source import ByteSource


@dataclass(frozen=True)
class PackageFile(WeightFile):
    """A package; `destination` is its path in the image."""

    @property
    def path(self) -> str:
        """Path in the image."""
        return self.destination


@dataclass(frozen=True)
class PackageLayer(WeightLayerSpec):
    """The packages of one layer."""

    @property
    def name(self) -> str:
        """What to call the layer."""
        return self.model


def of_debs(name: str, archive: str, packages: Sequence[Package], servers: Sequence[str]) -> PackageLayer:
    """Return the layer of an archive's .debs, in the places that its own server has them in.

    `servers`: where they may be had, without a slash at the end, the best first.
    """
    return PackageLayer(
        tuple(_deb(name, archive, each, servers) for each in sorted(packages, key=lambda each: each.name))
    )


def _deb(layer: str, archive: str, package: Package, servers: Sequence[str]) -> PackageFile:
    place = package.values["Filename"]
    return PackageFile(
        model=layer,
        destination=f"debs/{archive}/{place}",
        size=package.size,
        sha256=package.values["SHA256"],
        source=f"{package.name} {package.version}",
        revision=None,
        origin={"kind": "servers", "urls": [f"{server}/{quote(place, safe='/~+%')}" for server in servers]},
    )


def of_wheels(name: str, wheels: Sequence[tuple[Wheel, int]]) -> PackageLayer:
    """Return the layer of some wheels and their sizes (bytes), each in a folder called by its sha256.

    Raises LockError for a wheel that is not at an address.
    """
    return PackageLayer(tuple(_wheel(name, wheel, size) for wheel, size in wheels))


def _wheel(layer: str, wheel: Wheel, size: int) -> PackageFile:
    parts = urlsplit(wheel.url)
    if parts.scheme not in ("http", "https", "file"):
        raise LockError(f"{wheel.package} {wheel.version} cannot be kept: its wheel is at {wheel.url!r}.")
    local = {"kind": "local", "path": str(Path(unquote(parts.path)))}
    return PackageFile(
        model=layer,
        destination=f"wheels/{wheel.sha256}/{wheel.filename}",
        size=size,
        sha256=wheel.sha256,
        source=f"{wheel.package} {wheel.version}",
        revision=None,
        origin=local if parts.scheme == "file" else {"kind": "https", "url": wheel.url},
    )


class PackageSources(SourceClient):
    """Access to packages: of the servers that may have one, the first that has it."""

    def open(self, weight: WeightFile, offset: int = 0) -> ByteSource:
        """Begin to read a file."""
        if weight.origin["kind"] != "servers":
            return super().open(weight, offset)
        return _FirstOf(self, weight, offset)


class _FirstOf:
    """A file that several servers may have."""

    def __init__(self, access: SourceClient, weight: WeightFile, offset: int) -> None:
        self._access = access
        self._weight = weight
        self._offset = offset
        self._urls = list(weight.origin["urls"])
        self._begun = self._aborted = False
        self._reading = self._next()

    def readinto(self, buffer: memoryview) -> int:
        """Read some more bytes, from the next server where the one before has none of them."""
        while True:
            try:
                count = self._reading.readinto(buffer)
            except SourceError:
                if self._begun or self._aborted or not self._urls:
                    raise
                self._reading.close()
                self._reading = self._next()
            else:
                self._begun = True
                return count

    def abort(self) -> None:
        """End a blocked `readinto`."""
        self._aborted = True
        self._reading.abort()

    def close(self) -> None:
        """Close what is open."""
        self._reading.close()

    def _next(self) -> ByteSource:
        weight = PackageFile(**{**vars(self._weight), "origin": {"kind": "https", "url": self._urls.pop(0)}})
        return SourceClient.open(self._access, weight, self._offset)
