"""bench/bake.py: which limits follow from which times."""

from __future__ import annotations

import itertools

import bake
import contestants
from contestants import Seconds
from watch import Taken

LISTING = """ID:\t\taaa
Description:\tADD http://127.0.0.1/bench-1/w0

ID:\t\tbbb
Description:\tADD http://127.0.0.1/bench-2/w0

ID:\t\tccc
Parent:\taaa
Description:\tADD http://127.0.0.1/bench-1/w1
"""


def test_each_way_has_its_limit() -> None:
    """Builds are compared with all but the runtime's build, the bare copy with the weights alone."""
    times = {
        "podkiln": [Seconds(40, 30, 10), Seconds(40, 20, 11), Seconds(99, 10, 99)],
        "add": [Seconds.of(100)],
        "add-uncompressed": [Seconds.of(39)],
        "wget": [Seconds.of(60)],
        "copy": [Seconds.of(10)],
    }
    limits = bake.faster(times)
    assert [round(limit.found, 3) for limit in limits] == [0.2, 0.513, 0.333, 1.1]
    assert [limit.most for limit in limits] == [1 / 4, 1 / 2, 1 / 4, 1.1]
    assert [limit.kept for limit in limits] == [True, False, False, True]


def test_what_was_not_run_has_none() -> None:
    assert bake.faster({"copy": [Seconds.of(10)]}) == []
    assert bake.frugal([], "") == []


def test_the_most_of_all_rounds_counts_for_memory_and_disk() -> None:
    taken = [Taken(memory=100 << 20, disk=0, left=0), Taken(memory=201 << 20, disk=5 << 20, left=1 << 20)]
    assert [limit.found for limit in bake.frugal(taken, "x")] == [201, 5, 1]
    assert [limit.kept for limit in bake.frugal(taken, "x")] == [False, False, True]


def test_records_of_a_build_are_known_by_its_word() -> None:
    assert contestants.records(LISTING, "bench-1") == ["aaa", "ccc"]
    assert contestants.records(LISTING, "bench-3") == []


def test_no_leg_gains_by_its_place() -> None:
    """The two that are compared most closely both come after a build by Docker, which the engine digests."""
    run = [
        leg for number in (1, 2, 3) for leg in bake.order([bake.PODKILN, *contestants.CONTESTANTS], number)
    ]
    before = {(leg, last) for last, leg in itertools.pairwise(run) if leg in bake.WARM_UP}
    assert {last for _, last in before} <= {"add", "add-uncompressed", "wget"}
    assert all(run.count(leg) == 3 for leg in run)
