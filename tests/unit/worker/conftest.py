"""A ComfyUI for jobs, and patience that fits a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from servers.comfyui import ComfyUI

from comfy import connection, prompt_run, retry
from worker import job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.job import Place


@pytest.fixture
def comfyui() -> Iterator[ComfyUI]:
    with ComfyUI() as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_run, "_ASK_AGAIN", 0.2)
    monkeypatch.setattr(retry, "PAUSE", 0.05)
    monkeypatch.setattr(connection, "_PATIENCE", 0.5)
    monkeypatch.setattr(job, "_LOOK_AFTER", 0.05)


@pytest.fixture
def place(comfyui: ComfyUI, tmp_path: Path) -> Place:
    return job.Place(comfyui.url, tmp_path, patience=20.0)
