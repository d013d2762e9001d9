"""What is counted of jobs, for Prometheus: outcomes, seconds by phase, the card's memory."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from server.generation.request import Result

COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"
TIMED_OUT, REFUSED, OUT_OF_MEMORY = "timed_out", "refused", "out_of_memory"
OUTCOMES: Final = (COMPLETED, FAILED, CANCELLED, TIMED_OUT, REFUSED, OUT_OF_MEMORY)
BOUNDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Seconds: the upper bounds of a histogram's buckets."""
QUEUED: Final = "queue"
"""The phase in which a job waits; the others are the model's."""


@dataclass
class Histogram:
    """Seconds, sorted into buckets: the last one takes what is above all bounds."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0
    count: int = 0

    def note(self, seconds: float) -> None:
        """Take a figure."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        self.count += 1


@dataclass
class Counters:
    """What was counted since the start. `vram_peak`: bytes, the most of any generation."""

    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    phases: dict[str, Histogram] = field(default_factory=dict)
    vram_peak: int = 0

    def phase(self, name: str, seconds: float) -> None:
        """Take the seconds of a phase."""
        self.phases.setdefault(name, Histogram()).note(seconds)

    def result(self, result: Result) -> None:
        """Take what a generation says of itself."""
        for name, seconds in result.seconds.items():
            self.phase(name, seconds)
        self.vram_peak = max(self.vram_peak, result.vram_peak)
