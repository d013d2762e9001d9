"""The boot timeline: boot.json is always whole, and holds what took how long."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pod import health, timeline

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PODKILN_RUN", str(tmp_path))
    monkeypatch.setattr(timeline, "PAUSE", 0.001)
    return tmp_path


def serve_after(tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["not yet"] * tries)
    monkeypatch.setattr(health, "problem", lambda **_: next(answers, None))


def boot(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "boot.json").read_text()))


def test_a_boot_is_noted_and_said(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "decision.json").write_text('{"seconds": {"gpu": 0.05}}')
    serve_after(2, monkeypatch)
    monkeypatch.setattr(timeline, "now", lambda: 112.5)
    assert timeline.main(["100.0", "100.25"]) == 0
    noted = boot(run)
    assert (noted["schema"], noted["clock"], noted["ready"]) == (1, "boottime", 112.5)
    assert noted["seconds"] == {"gpu": 0.05, "start": 0.25, "comfyui": 12.25, "ready": 12.5}
    assert capsys.readouterr().err == "podkiln: ready in 12.5 s (gpu 0.05, start 0.25, comfyui 12.25)\n"
    assert [path.name for path in run.glob("boot*")] == ["boot.json"]


def test_before_comfyui_serves_it_is_noted_that_it_was_spawned(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(**_: object) -> None:
        assert boot(run)["spawned"] == 2.0
        assert "ready" not in boot(run)

    monkeypatch.setattr(health, "problem", look)
    assert timeline.main(["1.0", "2.0"]) == 0


def test_one_that_never_serves_is_said(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timeline, "wait_until_ready", lambda: None)
    assert timeline.main(["1.0", "2.0"]) == 1
    assert capsys.readouterr().err == "podkiln: ComfyUI has not answered for 1800 s.\n"
    assert "ready" not in boot(run)


def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "problem", lambda **_: "never")
    assert timeline.wait_until_ready(patience=0.02) is None


@pytest.mark.parametrize("text", [None, "", "{}", "{"])
def test_a_boot_without_a_decision_is_noted_all_the_same(text: str | None, run: Path) -> None:
    if text is not None:
        (run / "decision.json").write_text(text)
    assert timeline.decision(run) == {}
