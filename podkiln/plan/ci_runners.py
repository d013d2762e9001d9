"""Whether a free CI runner suffices for a build and its push: one file a kind of runner in variants/runners/.

Weights stream through a runner; they take its disk only when they are spooled. Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from heapq import nlargest
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from podkiln.config import document
from podkiln.config.cuda_releases import ImagePlatform
from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.variant import SHIPPED
from podkiln.util.console import GB

if TYPE_CHECKING:
    from podkiln.plan.plan import Plan

FOLDER = SHIPPED / "runners"
Positive = Annotated[int, Field(gt=0)]
_HOURS = 2 * 3600  # seconds from which on time is said in hours


class Reclaimable(StrictModel):
    """What comes with a runner and may be deleted to free its disk."""

    folders: TupleOf[str] = Field(min_length=1)
    bytes: Positive

    @property
    def command(self) -> str:
        """What a person types."""
        return f"sudo rm -rf {' '.join(self.folders)}"


class Runner(StrictModel):
    """One kind of runner: what it promises."""

    name: str
    platform: ImagePlatform = Field(description="What its machine builds without an emulator.")
    free_bytes: Positive = Field(description="Disk that a job may fill, by what is promised.")
    unused: Reclaimable
    job_seconds: Positive = Field(description="How long a job may take.")
    source: str


@dataclass(frozen=True)
class RunnerCheck:
    """How a build stands to a runner. Bytes of disk and seconds that it takes there."""

    runner: Runner
    disk: int
    seconds: float

    @property
    def in_time(self) -> bool:
        """Whether a job lasts long enough."""
        return self.seconds <= self.runner.job_seconds

    @property
    def fits(self) -> bool:
        """Whether the disk holds it as it is."""
        return self.disk <= self.runner.free_bytes

    @property
    def fits_cleaned(self) -> bool:
        """Whether the disk holds it once what is unused is deleted."""
        return self.disk <= self.runner.free_bytes + self.runner.unused.bytes

    @property
    def suffices(self) -> bool:
        """Whether the build can be done there."""
        return self.in_time and self.fits_cleaned

    def __str__(self) -> str:
        runner = self.runner
        verdict = "is enough" if self.suffices else "is not enough"
        has = f"{_gigabytes(runner.free_bytes)} are free"
        more = f", {_gigabytes(runner.unused.bytes)} more after `{runner.unused.command}`"
        time = f"{_time(self.seconds)} of at most {_time(runner.job_seconds)}"
        room = has if self.fits else has + more
        return f"{runner.name} {verdict}: {_gigabytes(self.disk)} of disk ({room}), {time}"

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {
            "name": self.runner.name,
            "suffices": self.suffices,
            "disk_bytes": self.disk,
            "free_bytes": self.runner.free_bytes,
            "unused_bytes": self.runner.unused.bytes,
            "delete": None if self.fits else list(self.runner.unused.folders),
            "seconds": round(self.seconds),
            "job_seconds": self.runner.job_seconds,
            "source": self.runner.source,
        }


def check_runners(plan: Plan) -> list[RunnerCheck]:
    """Return how a build of a plan, with its push, stands to each runner of its platform that is known."""
    able = [runner for runner in load() if runner.platform == plan.described.platform]
    return [RunnerCheck(runner, disk(plan), seconds(plan)) for runner in able]


def disk(plan: Plan) -> int:
    """Return the bytes of disk that a build with its push takes at most."""
    spooled = _spooled(plan) if plan.request.transfer.spool else []
    return plan.described.release.measured.build_disk + sum(spooled)


def _spooled(plan: Plan) -> list[int]:
    return nlargest(plan.request.transfer.jobs, (each.size for each in plan.lacking))


def seconds(plan: Plan) -> float:
    """Return how long a build with its push takes: nothing cached, and one upload's rate for all together.

    Weights are fetched and sent in the same time, so the larger of both counts.
    """
    measured = plan.described.release.measured
    moved = measured.compressed + max(plan.fetch_bytes, plan.upload_bytes)
    return measured.build_seconds + moved / plan.request.transfer.rate


@cache
def load() -> tuple[Runner, ...]:
    """Return the runners that something is known of. Raises DescriptionError."""
    return tuple(document.load(path).parse(Runner) for path in document.files(FOLDER))


def _gigabytes(count: int) -> str:
    return f"{-(-count // GB)} GB"


def _time(count: float) -> str:
    return f"{-(-count // 60):.0f} min" if count < _HOURS else f"{count / 3600:.3g} h"
