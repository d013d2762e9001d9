"""What `doctor` says of the process that takes jobs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pod.checks import report

if TYPE_CHECKING:
    from pathlib import Path

ENDS = [{"ended": 2.0, "why": "exit code 1"}, {"ended": 5.0, "why": "exit code 137, SIGKILL"}]


@pytest.mark.parametrize(
    ("serve", "boot", "says"),
    [
        (None, {}, []),
        ("runpod", {}, [("note", "no worker takes jobs in this container")]),
        ("runpod", {"worker": {"spawned": 1.0, "restarts": []}}, []),
        (
            "http",
            {"worker": {"spawned": 1.0, "restarts": ENDS}},
            [("warning", "the worker has ended 2 times, the last time with exit code 137, SIGKILL")],
        ),
    ],
)
def test_what_became_of_the_worker_is_said_where_there_is_to_be_one(
    serve: str | None, boot: dict[str, Any], says: list[tuple[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "boot.json").write_text(json.dumps(boot))
    found = report.worker({"serve": serve}, {"PODKILN_RUN": str(tmp_path)})
    assert [(each.level, each.message) for each in found] == says
