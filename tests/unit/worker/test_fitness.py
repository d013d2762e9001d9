"""Whether a worker can do its jobs: read from what start.sh decided, and nowhere else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pod.hardware import gpu_presence
from worker import fitness

if TYPE_CHECKING:
    from pathlib import Path

FATAL = {"level": "fatal", "check": "driver", "message": "the driver is older than CUDA 13.0 needs"}
NOTE = {"level": "note", "check": "nodes", "message": "a node is not loaded"}
CARD = {"index": 0, "name": "NVIDIA H100"}
SHOULD = {"RUNPOD_GPU_COUNT": "1"}


@pytest.mark.parametrize(
    ("decision", "environ", "says"),
    [
        ({"gpu": CARD, "findings": [NOTE]}, SHOULD, None),
        (
            {"gpu": CARD, "findings": [NOTE, FATAL]},
            SHOULD,
            "ComfyUI cannot work here: the driver is older than",
        ),
        ({"gpu": CARD, "findings": [FATAL]}, {**SHOULD, "PODKILN_DOCTOR": "warn"}, None),
        (
            {"gpu": None, "findings": []},
            SHOULD,
            "There is no GPU that ComfyUI can use, and RUNPOD_GPU_COUNT=1",
        ),
        ({"gpu": None, "findings": []}, {"RUNPOD_GPU_COUNT": "0"}, None),
        ({"gpu": None, "findings": []}, {**SHOULD, "COMFYUI_ARGS": "--cpu --fast"}, None),
        (None, SHOULD, None),
    ],
)
def test_what_start_sh_found_decides(
    decision: dict[str, Any] | None,
    environ: dict[str, str],
    says: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_presence.witness, "__defaults__", (str(tmp_path / "dev"), "", []))
    if decision is not None:
        (tmp_path / "decision.json").write_text(json.dumps(decision))
    found = fitness.problem(tmp_path, environ)
    assert (found or "").startswith(says) if says else found is None
