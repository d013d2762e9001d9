"""The CUDA releases that images can be built for: one file each in variants/cuda/.

A file says which drivers and platforms a release works with, which torch is built for it, and what its
runtime is described with below all variants: what a variant says itself is stronger.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field

from podkiln.config import document
from podkiln.config.document import ROOT, StrictModel, TupleOf
from podkiln.config.fields import Identifier, PackageGlob, Phrase, Platform, Text, Version
from podkiln.config.model import Precision
from podkiln.errors import UsageError
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from podkiln.config.document import Document

FOLDER: Final = ROOT / "variants" / "cuda"
BASE: Final = ROOT / "variants" / "base.yaml"
Bytes = Annotated[int, Field(gt=0)]
ImagePlatform: TypeAlias = Literal["linux/amd64", "linux/arm64"]
AMD64: Final = "linux/amd64"


class Driver(StrictModel):
    """NVIDIA drivers, as versions."""

    full: Version = Field(description="The oldest that has all of this CUDA.")
    least: Version = Field(description="The oldest that loads it at all; between the two, a pod warns.")


class PlatformSupport(StrictModel):
    """One platform that torch's wheels of this CUDA are there for."""

    wheels: Platform = Field(description="uv's name of the platform that wheels are chosen for.")
    untried: Phrase | None = Field(None, description="What was never seen of it; plan says so.")


class Limit(StrictModel):
    """What does not work with this CUDA, or works slower."""

    name: Identifier
    packages: TupleOf[PackageGlob] = Field(min_length=1, description="It concerns images with one of these.")
    precisions: TupleOf[Precision] = Field((), description="The weights that it concerns.")
    says: Phrase


class Measured(StrictModel):
    """Sizes and times of the full runtime: figures that no lock holds. Bytes and seconds."""

    how: Text
    compressed: Bytes = Field(description="All layers as pushed: the sum of `size` in a build's report.")
    largest_layer: Bytes
    unpacked: Bytes = Field(description="What they take on a pod.")
    uv_cache: Bytes = Field(description="The cache mount that wheels are unpacked in, while it builds.")
    unpacked_layers: Bytes = Field(description="Each step's layer, while it builds.")
    plain_layers: Bytes = Field(description="The same layers as plain tars, which BuildKit exports.")
    build_seconds: Bytes = Field(description="With nothing cached, on 2 cores.")

    @property
    def build_disk(self) -> int:
        """What one build with --no-keep takes of the disk; streaming takes at most 1.3 of the export."""
        return self.uv_cache + self.unpacked_layers + self.plain_layers + int(1.3 * self.compressed)


class CudaRelease(StrictModel):
    """A file of variants/cuda/, named after the release."""

    cuda: Version
    driver: Driver
    platforms: dict[ImagePlatform, PlatformSupport] = Field(min_length=1)
    torch: TupleOf[Text] = Field(
        min_length=1,
        description="Requirements of torch and what goes with it; one that the variant's own requirements "
        "pin is left to these.",
    )
    limits: TupleOf[Limit] = ()
    measured: Measured
    runtime: dict[str, Any] = Field({}, description="Keys of a variant's runtime, below all variants.")


def names() -> list[str]:
    """Return the releases that there are, the newest first."""
    found = [path.stem for path in document.files(FOLDER)]
    return sorted(found, key=lambda name: [int(part) for part in name.split(".")], reverse=True)


@cache
def default() -> str:
    """Return the release that variants have unless they say otherwise: the one in variants/base.yaml."""
    return str(document.load(BASE).data["runtime"]["cuda"])


@cache
def file(release: str) -> Document:
    """Read the file of a release that there is."""
    return document.load(FOLDER / f"{release}.yaml")


@cache
def load(release: str) -> CudaRelease:
    """Return a release that there is. Raises DescriptionError for a file that is wrong."""
    described = file(release).parse(CudaRelease)
    if described.cuda != release:
        raise file(release).error(("cuda",), f"the file is named after {release}, but says {described.cuda}.")
    return described


def check(asked: str | None) -> None:
    """See that there is the release that --cuda names. Raises UsageError."""
    if asked is not None and asked not in names():
        raise UsageError(
            f"--cuda: there is no CUDA {shown(asked)}.", hint=f"There are: {', '.join(names())}."
        )


def runtimes() -> list[tuple[str, ImagePlatform]]:
    """Return each release with each of its platforms; the default one on linux/amd64 comes first."""
    found = [(release, platform) for release in names() for platform in load(release).platforms]
    return sorted(found, key=lambda each: (each != (default(), AMD64), each))


def of_platform(platform: ImagePlatform) -> list[str]:
    """Return the releases whose torch has CUDA on a platform, the newest first."""
    return [name for name in names() if platform in load(name).platforms]


def runtime_name(comfyui: str, release: str, platform: str) -> str:
    """Return what a runtime is called unless its description names it; its lock has this name."""
    machine = platform.partition("/")[2]
    return f"comfyui-{comfyui}-cuda-{release}" + ("" if platform == AMD64 else f"-{machine}")
