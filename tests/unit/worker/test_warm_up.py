"""The workflow that is run before the first job: whatever is wrong with it is a line of the log."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from unit.worker.test_job import WORKFLOW

from worker import warm_up

if TYPE_CHECKING:
    from pathlib import Path

    from servers.comfyui import ComfyUI

    from worker.job import Place


def test_it_is_run_from_its_text_or_from_a_file(
    comfyui: ComfyUI, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "warm.json"
    path.write_text(json.dumps(WORKFLOW))
    for given in (str(path), json.dumps(WORKFLOW)):
        asyncio.run(warm_up.run(given, place))
    assert capsys.readouterr().err.count("warm-up: done in") == 2
    assert [each["prompt"] for each in comfyui.prompts] == [WORKFLOW] * 2
    assert comfyui.viewed == [], "nobody wants what it makes"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("/nowhere.json", "No such file or directory: '/nowhere.json'"),
        ("{", "Expecting property name"),
        ('{"7": {"class_type": "Gone", "inputs": {}}}', "Node 'Gone' not found"),
        ("{}", "WARMUP_WORKFLOW"),
    ],
)
def test_one_that_cannot_be_run_stops_nothing(
    place: Place, capsys: pytest.CaptureFixture[str], given: str, said: str
) -> None:
    asyncio.run(warm_up.run(given, place))
    (line,) = capsys.readouterr().err.splitlines()
    assert "warm-up: failed after" in line
    assert said in line


def test_one_that_does_not_end_is_stopped(
    comfyui: ComfyUI, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    comfyui.faults.endless = True
    asyncio.run(warm_up.run(json.dumps(WORKFLOW), replace(place, patience=5.0), seconds=0.5))
    assert "it has not ended after 0 s" in capsys.readouterr().err
    assert not comfyui.running


def test_what_a_node_raises_is_said(
    comfyui: ComfyUI, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    comfyui.faults.error = "out of memory"
    asyncio.run(warm_up.run(json.dumps(WORKFLOW), place))
    assert "out of memory" in capsys.readouterr().err
