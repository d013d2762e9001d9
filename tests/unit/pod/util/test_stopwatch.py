"""A stopwatch gives each part its own time."""

from __future__ import annotations

import time

import pytest

from pod.util.stopwatch import Stopwatch


def test_each_lap_counts_from_the_last_one() -> None:
    watch = Stopwatch()
    time.sleep(0.05)
    watch.lap("gpu")
    watch.lap("flags")
    assert watch.seconds == {"gpu": pytest.approx(0.05, abs=0.04), "flags": pytest.approx(0, abs=0.02)}
