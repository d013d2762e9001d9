"""`fetch --status` reads what a fetch last wrote, and notices that it died."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from pod.downloads import status
from pod.downloads.progress import Progress, ProgressReport
from pod.downloads.states import RunState, State

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def board(path: Path) -> ProgressReport:
    done = Progress("m", "vae/a", 100, State.FETCHED, 100)
    failed = Progress("m", "vae/b", 50, State.FAILED, error="vae/b is gone")
    return ProgressReport(path, [done, failed, Progress("n", "vae/c", None)])


def test_before_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.show(tmp_path) == 0
    assert capsys.readouterr().out == "Nothing has been fetched in this pod yet.\n"


def test_it_shows_files_and_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board(tmp_path / "fetch.json").write(RunState.FAILED)
    assert status.show(tmp_path) == 1
    assert capsys.readouterr().out.splitlines() == [
        "fetched    m: vae/a  100 B of 100 B (100 %)",
        "failed     m: vae/b  0 B of 50 B (0 %)  vae/b is gone",
        "queued     n: vae/c",
        "failed: 100 B of 150 B",
    ]


def test_a_running_fetch_shows_how_fast_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = Progress("m", "vae/a", 7_000_000_000, State.FETCHING, 1_000_000_000, rate=100e6)
    ProgressReport(tmp_path / "fetch.json", [file]).write(RunState.RUNNING)
    status.show(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "fetching   m: vae/a  1.0 GB of 7.0 GB (14 %), 100 MB/s, 1 min 0 s left",
        "running: 1.0 GB of 7.0 GB, 100 MB/s, 1 min 0 s left",
    ]


def test_a_terminal_gets_bars_and_remarks_below(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    board(tmp_path / "fetch.json").write(RunState.FAILED)
    monkeypatch.setattr(status, "width_of", lambda _: 60)
    monkeypatch.setenv("NO_COLOR", "1")
    status.show(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "fetched    [################] 100%  vae/a",
        "failed     [----------------]   0%  vae/b",
        "           vae/b is gone",
        "queued     [----------------]   0%  vae/c",
        "failed: 100 B of 150 B",
    ]


def test_it_knows_a_fetch_that_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board(tmp_path / "fetch.json").write(RunState.RUNNING)
    record = json.loads((tmp_path / "fetch.json").read_text())
    status.show(tmp_path)
    assert capsys.readouterr().out.endswith("running: 100 B of 150 B\n")
    record["pid"] = 2**22 + 1  # above the kernel's largest
    (tmp_path / "fetch.json").write_text(json.dumps(record))
    status.show(tmp_path)
    assert "ended early; start the fetch again" in capsys.readouterr().out
    (tmp_path / "fetch.kept").touch()
    status.show(tmp_path)
    assert capsys.readouterr().out.endswith(
        "killed; it is started again, and goes on where it stopped: 100 B of 150 B\n"
    )


DEAD = 2**22 + 1  # above the kernel's largest


def test_who_fetches_by_hand_writes_beside_the_boot(tmp_path: Path) -> None:
    """Both may run at once; what ended by hand is shown until the next one."""
    boot = tmp_path / "fetch.json"
    mine = tmp_path / f"fetch-{os.getpid()}.json"
    assert status.own(tmp_path, by_hand=False) == boot
    assert status.own(tmp_path, by_hand=True) == mine
    board(boot).write(RunState.RUNNING)
    assert status.own(tmp_path, by_hand=False) == mine  # without words, while the boot's is at it
    record = json.loads(boot.read_text())
    ended, running = tmp_path / f"fetch-{DEAD}.json", tmp_path / "fetch-1.json"
    ended.write_text(json.dumps({**record, "pid": DEAD}))
    running.write_text(boot.read_text())
    assert status.own(tmp_path, by_hand=True) == mine
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fetch-1.json", "fetch.json"]


def test_all_fetches_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board(tmp_path / "fetch.json").write(RunState.FAILED)
    ProgressReport(tmp_path / "fetch-7.json", [Progress("n", "loras/d", 10, State.FETCHED, 10)]).write(
        RunState.DONE
    )
    assert status.show(tmp_path) == 1
    said = capsys.readouterr().out
    assert said.index("failed: 100 B of 150 B") < said.index("loras/d") < said.index("done: 10 B of 10 B")
