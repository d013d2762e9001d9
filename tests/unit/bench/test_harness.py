"""What all benchmarks end with: a table, limits, and an exit code that follows from them."""

from __future__ import annotations

import harness
import pytest
from harness import Limit


@pytest.mark.parametrize(
    ("found", "kept", "line"),
    [
        (1.0, True, "ok      time: 1 s, at most 1.1 s"),
        (1.1, True, "ok      time: 1.1 s, at most 1.1 s"),
        (1.2, False, "MISSED  time: 1.2 s, at most 1.1 s"),
    ],
)
def test_a_limit_says_whether_it_is_kept(found: float, kept: bool, line: str) -> None:
    limit = Limit("time", found, 1.1, " s")
    assert limit.kept is kept
    assert str(limit) == line


@pytest.mark.parametrize(("found", "code"), [((1, 2), 0), ((1, 3), 1), ((), 0)])
def test_one_missed_limit_is_enough(
    found: tuple[int, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert harness.conclude([Limit("bytes", each, 2) for each in found]) == code
    assert len(capsys.readouterr().out.split("bytes")) == len(found) + 1


def test_a_table_has_words_left_and_figures_right() -> None:
    assert harness.table(["leg", "s"], [["copy", "9.5"], ["b", "10.5"]]).splitlines() == [
        "leg      s",
        "----  ----",
        "copy   9.5",
        "b     10.5",
    ]
