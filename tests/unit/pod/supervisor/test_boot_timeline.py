"""The boot timeline: boot.json is always whole, and the sentence says what took how long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from pod import comfyui_http
from pod.supervisor import boot_timeline
from pod.supervisor import process as life
from pod.supervisor.boot_timeline import Timeline

if TYPE_CHECKING:
    from pathlib import Path


def boot(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "boot.json").read_text()))


def test_a_boot_is_noted_and_said(tmp_path: Path) -> None:
    (tmp_path / "boot.json").write_text('{"schema": 1, "seconds": {"gpu": 0.05, "flags": 0.01}}')
    times = Timeline(tmp_path, 100.0, 100.25)
    assert boot(tmp_path)["seconds"] == {"gpu": 0.05, "flags": 0.01, "start": 0.25}
    assert times.ready(108.6) == "ready in 8.6 s (gpu 0.05, flags 0.01, comfyui 8.3)"
    noted = boot(tmp_path)
    assert [noted[key] for key in ("schema", "clock", "started", "spawned", "ready")] == [
        1, "boottime", 100.0, 100.25, 108.6,
    ]  # fmt: skip
    assert noted["seconds"] == {"gpu": 0.05, "flags": 0.01, "start": 0.25, "comfyui": 8.35, "ready": 8.6}
    assert [path.name for path in tmp_path.iterdir()] == ["boot.json"]


def test_restarts_are_noted_and_the_first_start_stays(tmp_path: Path) -> None:
    times = Timeline(tmp_path, 0.0, 1.0)
    times.ready(2.0)
    times.ended(10.0, "exit code 1")
    times.spawned(11.0)
    assert times.ready(13.5) == "ready again in 2.5 s"
    assert boot(tmp_path)["ready"] == 2.0
    assert boot(tmp_path)["restarts"] == [
        {"ended": 10.0, "why": "exit code 1", "spawned": 11.0, "ready": 13.5}
    ]


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_boot_without_what_decide_noted_is_noted_all_the_same(text: str, tmp_path: Path) -> None:
    (tmp_path / "boot.json").write_text(text)
    assert Timeline(tmp_path, 1.0, 2.0).ready(3.0) == "ready in 2.0 s (comfyui 1.0)"


def test_a_run_folder_that_is_gone_costs_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Timeline(tmp_path / "file", 1.0, 2.0).ready(3.0).startswith("ready in")


def row(model: str, state: str, received: int, total: int | None) -> dict[str, Any]:
    return {"model": model, "state": state, "bytes": received, "total": total}


GB = 1000**3
ROWS = [
    row("a", "fetched", 5 * GB, 5 * GB),
    row("b", "fetching", 1 * GB, 2 * GB),
    row("b", "queued", 0, 10 * GB),
    row("c", "queued", 0, 30 * GB),
    row("d", "failed", 0, 9 * GB),
]


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"state": "running", "files": ROWS}, "fetching 2 of 4 models, 41.0 GB, in the background"),
        (
            {"state": "running", "files": [row("a", "queued", 0, None)]},
            "fetching 1 of 1 models in the background",
        ),
        ({"state": "running", "files": ROWS[:1]}, ""),
        ({"state": "done", "files": ROWS}, ""),
        (None, "fetching 2 of 2 models in the background"),
    ],
)
def test_what_is_still_fetched_is_said(record: dict[str, Any] | None, says: str, tmp_path: Path) -> None:
    models = [{"id": "a", "fetch": True}, {"id": "b", "fetch": True}, {"id": "c", "fetch": False}]
    (tmp_path / "decision.json").write_text(json.dumps({"models": models}))
    if record:
        (tmp_path / "fetch.json").write_text(json.dumps(record))
    assert boot_timeline.fetching(tmp_path) == says
    assert Timeline(tmp_path, 0.0, 1.0).ready(2.0) == "; ".join(
        filter(None, ["ready in 2.0 s (comfyui 1.0)", says])
    )


def test_it_waits_until_comfyui_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["not yet", "not yet"])
    monkeypatch.setattr(boot_timeline, "PAUSE", 0.001)
    monkeypatch.setattr(comfyui_http, "problem", lambda **_: next(answers, None))
    assert boot_timeline.wait_until_ready(lambda: False) == pytest.approx(life.now(), abs=1)


def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot_timeline, "PAUSE", 0.001)
    monkeypatch.setattr(comfyui_http, "problem", lambda **_: "never")
    assert boot_timeline.wait_until_ready(lambda: False, patience=0.02) is None
    assert boot_timeline.wait_until_ready(lambda: True) is None


def test_a_process_knows_when_it_was_started() -> None:
    """On the clock that the kernel keeps for it."""
    before = life.now()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert boot_timeline.start_of(process.pid) == pytest.approx(before, abs=0.5)
        time.sleep(0.01)
    assert boot_timeline.start_of(os.getpid()) < before


def test_another_one_that_answers_on_the_port_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfyui_http, "problem", lambda **_: None)
    assert boot_timeline.wait_until_ready(lambda: False, 0.3, ours=lambda: False) is None
    assert boot_timeline.wait_until_ready(lambda: False, 0.3, ours=lambda: True) is not None
