"""What people and scripts read while files arrive."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pod.downloads.progress import Progress, ProgressReport
from pod.downloads.states import RunState, State
from pod.util.units import human


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (2_500_000, "2 MB"),
        (6_938_078_334, "6.9 GB"),
        (41e12, "41000.0 GB"),
    ],
)
def test_bytes_are_written_as_hubs_write_them(count: float, text: str) -> None:
    assert human(count) == text


def test_the_line_of_the_log_has_bytes_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("pod.downloads.progress.time.monotonic", lambda: next(clock))
    file = Progress("sdxl", "vae/a", state=State.FETCHING)
    file.begin(0, 7_000_000_000)
    file.moved(1_000_000_000, 7_000_000_000)
    file.tick()
    assert file.line() == "sdxl: vae/a: fetching, 1.0 GB of 7.0 GB, 100 MB/s, 1 min 0 s left"
    file.say("hub answers 503; again in 4 s")
    file.tick()
    assert file.line() == "sdxl: vae/a: fetching, 1.0 GB of 7.0 GB (hub answers 503; again in 4 s)"
    file.state, file.note = State.WAITING, ""
    assert file.line() == "sdxl: vae/a: waiting"


def test_what_was_there_before_has_no_part_in_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed file does not begin at 6 GB a second; and the rate is that of the last ten seconds."""
    clock = iter([0.0, 1.0, 10.0, 20.0])
    monkeypatch.setattr("pod.downloads.progress.time.monotonic", lambda: next(clock))
    file = Progress("sdxl", "vae/a", state=State.FETCHING)
    file.begin(6_000_000_000, 7_000_000_000)
    rates = []
    for received in (6_000_000_050, 6_000_000_500, 6_000_000_500):
        file.moved(received, 7_000_000_000)
        file.tick()
        rates.append(file.rate)
    assert rates == [50, 50, 0]


def board(path: Path) -> ProgressReport:
    done = Progress("m", "vae/a", 100, State.FETCHED, 100, path="/w/vae/a")
    failed = Progress("m", "vae/b", 50, State.FAILED, error="vae/b is gone")
    return ProgressReport(path, [done, failed, Progress("n", "vae/c", None)])


def test_fetch_json(tmp_path: Path) -> None:
    board(tmp_path / "run/fetch.json").write(RunState.RUNNING)
    record = json.loads((tmp_path / "run/fetch.json").read_text())
    assert {key: record[key] for key in ("schema", "state", "pid", "bytes", "total")} == {
        "schema": 1,
        "state": "running",
        "pid": os.getpid(),
        "bytes": 100,
        "total": 150,
    }
    assert record["files"][1] == {
        "model": "m",
        "file": "vae/b",
        "state": "failed",
        "bytes": 0,
        "total": 50,
        "note": "",
        "error": "vae/b is gone",
        "path": None,
        "rate": 0,
    }
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["fetch.json"]


def test_a_full_disk_does_not_end_the_fetch(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    board(tmp_path / "run/fetch.json").write(RunState.RUNNING)


def test_the_summary_counts() -> None:
    assert board(Path("x")).summary() == "1 fetched (100 B), 0 already there, 1 failed, of 3 files"
