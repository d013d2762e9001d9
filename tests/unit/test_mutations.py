"""Each fault of tests/mutations.yaml can be put in: a line that has changed is noticed at once."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROWS = yaml.safe_load((ROOT / "tests" / "mutations.yaml").read_text())


def test_each_fault_has_its_place() -> None:
    stale = [row["family"] for row in ROWS if (ROOT / row["file"]).read_text().count(row["old"]) != 1]
    assert stale == []
    assert [row["family"] for row in ROWS if row["old"] == row["new"]] == []
