"""nvidia-smi as a process: waited for, but not for ever, and never left behind."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pod.hardware import nvidia_smi

if TYPE_CHECKING:
    from unit.pod.conftest import Play


def test_an_answer_comes_with_its_exit_code(play: Play) -> None:
    play("24")
    with nvidia_smi.NvidiaSmiQuery() as question:
        code, output = question.answer()
    assert code == 0
    assert output.startswith("0, GPU-24aaaaaa-0000-4000-8000-000000000001, NVIDIA A10G, 23028, [N/A], ")


def test_errors_are_answers_too(play: Play) -> None:
    play("failing")
    with nvidia_smi.NvidiaSmiQuery() as question:
        code, output = question.answer()
    assert code == 18
    assert "Driver/library version mismatch" in output


def test_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        nvidia_smi.NvidiaSmiQuery() as question,
        pytest.raises(nvidia_smi.NoAnswerError, match="not installed") as failure,
    ):
        question.answer()
    assert failure.value.missing


def test_not_executable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        nvidia_smi.NvidiaSmiQuery() as question,
        pytest.raises(nvidia_smi.NoAnswerError, match="could not be started") as failure,
    ):
        question.answer()
    assert not failure.value.missing


def test_a_hanging_one_is_killed_with_its_children(play: Play) -> None:
    play("hang")
    begun = time.monotonic()
    with nvidia_smi.NvidiaSmiQuery(limit=0.3) as question:
        assert question._process is not None
        group = question._process.pid
        with pytest.raises(nvidia_smi.NoAnswerError, match=r"did not answer within 0\.3 s and was ended"):
            question.answer()
    assert time.monotonic() - begun < 2
    assert _left(group) == []


def test_leaving_early_kills_it(play: Play) -> None:
    """A refused setting must not leave nvidia-smi running."""
    play("hang")
    with nvidia_smi.NvidiaSmiQuery() as question:
        assert question._process is not None
        group = question._process.pid
    assert _left(group) == []


def _left(group: int) -> list[str]:
    """Return what of a process group still lives after a second: what is killed takes a moment to die."""
    deadline = time.monotonic() + 1
    while (alive := _alive(group)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return alive


def _alive(group: int) -> list[str]:
    """Return the processes of a group that are not zombies waiting for init."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text(encoding="utf-8").rpartition(") ")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            alive.append(stat.parent.name)
    return alive
