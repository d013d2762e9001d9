"""Findings, the worst first."""

from __future__ import annotations

from pod.util.finding import FATAL, NOTE, WARNING, Finding, worst_first


def test_the_worst_comes_first_and_nothing_is_said_twice() -> None:
    note, disk, clock = (
        Finding(NOTE, "memory", "a"),
        Finding(WARNING, "disk", "b"),
        Finding(WARNING, "clock", "c"),
    )
    fatal = Finding(FATAL, "driver", "d")
    assert worst_first([note, disk, clock, fatal, disk]) == [fatal, disk, clock, note]


def test_it_survives_json() -> None:
    finding = Finding(WARNING, "disk", "full")
    assert Finding.from_json(finding.to_json()) == finding
