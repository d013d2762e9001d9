"""The benchmark of a worker's first job: what it gates, and what its jobs are."""

from __future__ import annotations

import cold_job
import pytest
from cold_job import Times


@pytest.mark.parametrize(("first", "other", "kept"), [(1.05, 10.0, [True, True]), (1.2, 9.0, [False, False])])
def test_it_gates_the_first_job_by_the_second_and_the_start_by_the_other_workers(
    first: float, other: float, kept: list[bool]
) -> None:
    times = {
        "cold": [Times(10.0, 3.0, 1.0)] * 3,
        "warm": [Times(12.0, first, 1.0)] * 3,
        "against": [Times(other, 1.0, 1.0)] * 3,
    }
    assert [each.kept for each in cold_job.limits(times, 1.1, 1.0)] == kept
    del times["against"]
    assert len(cold_job.limits(times, 1.1, 1.0)) == 1
    assert "\nwarm " in cold_job.table(times)


def test_each_job_is_another_one() -> None:
    picture, other = (cold_job.seeded(cold_job.PICTURE, number) for number in (1, 2))
    assert picture["1"]["inputs"]["color"] == 1
    assert other["1"]["inputs"]["color"] == 2
    assert (picture["2"], picture["3"]) == (other["2"], other["3"])
