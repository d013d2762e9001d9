"""When what happened to this pod: $PODKILN_RUN/boot.json, and one line in the log once ComfyUI serves.

Times are seconds of CLOCK_BOOTTIME, so a clock that is set meanwhile changes nothing. `decide` begins the
file with how long its parts took; the supervisor goes on with it, and adds each restart of ComfyUI, and what
becomes of the process that takes jobs.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from pod import comfyui_http
from pod.downloads.states import OVER, RunState
from pod.supervisor.process import now
from pod.util import child_processes
from pod.util.files import recall, write_json
from pod.util.units import human

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAUSE = 0.1
# A first start with many custom nodes takes minutes; after this long somebody is looking anyway.
PATIENCE = 1800.0
NAME = "boot.json"


def wait_until_ready(
    over: Callable[[], bool],
    patience: float = PATIENCE,
    ours: Callable[[], bool] = lambda: True,
    problem: Callable[..., str | None] | None = None,
) -> float | None:
    """Wait until ComfyUI serves. Returns when it did; None when it is over or has not in so many seconds.

    `ours` tells whether the one that answers is ours: another may have the port. `problem` asks another
    program than ComfyUI.
    """
    problem = problem or comfyui_http.problem
    end = now() + patience
    while now() < end and not over():
        if problem(timeout=2.0) is None and ours():
            return now()
        time.sleep(PAUSE)
    return None


def start_of(process: int) -> float:
    """Return when a process was started, by the clock of `now`. Raises OSError, ValueError."""
    return child_processes.start(process) / os.sysconf("SC_CLK_TCK")


class Timeline:
    """The times of one boot. A run folder that is full costs the file, and nothing else."""

    def __init__(self, run: Path, started: float, spawned: float, program: str = "comfyui") -> None:
        self._run = run
        self._program = program
        self._parts = {
            name: float(value) for name, value in dict(recall(run / NAME).get("seconds", {})).items()
        }
        self._notes: dict[str, Any] = {
            "schema": 1,
            "clock": "boottime",
            "started": round(started, 3),
            "spawned": round(spawned, 3),
            "seconds": {**self._parts, "start": round(spawned - started, 3)},
            "restarts": [],
        }
        self._turn = threading.Lock()
        self._write()

    def ready(self, at: float) -> str:
        """Note that ComfyUI serves; returns the sentence for the log."""
        restarts = self._notes["restarts"]
        if restarts:
            restarts[-1]["ready"] = round(at, 3)
            self._write()
            return f"ready again in {at - restarts[-1]['spawned']:.1f} s"
        started, spawned = self._notes["started"], self._notes["spawned"]
        self._notes["ready"] = round(at, 3)
        took = {self._program: round(at - spawned, 3), "ready": round(at - started, 3)}
        self._notes["seconds"] |= took
        self._write()
        shown = [f"{name} {value:.2f}" for name, value in self._parts.items()]
        parts = ", ".join([*shown, f"{self._program} {took[self._program]:.1f}"])
        return "; ".join(filter(None, [f"ready in {took['ready']:.1f} s ({parts})", fetching(self._run)]))

    def ended(self, at: float, why: str) -> None:
        """Note that ComfyUI has ended."""
        self._notes["restarts"].append({"ended": round(at, 3), "why": why})
        self._write()

    def spawned(self, at: float) -> None:
        """Note that it was started again."""
        self._notes["restarts"][-1]["spawned"] = round(at, 3)
        self._write()

    def worker_spawned(self, at: float) -> None:
        """Note that what takes jobs was started, again perhaps."""
        with self._turn:
            worker = self._notes.setdefault("worker", {"spawned": round(at, 3), "restarts": []})
            if worker["restarts"]:
                worker["restarts"][-1]["spawned"] = round(at, 3)
        self._write()

    def worker_ended(self, at: float, why: str) -> None:
        """Note that what takes jobs has ended."""
        with self._turn:
            self._notes["worker"]["restarts"].append({"ended": round(at, 3), "why": why})
        self._write()

    def _write(self) -> None:
        with self._turn, contextlib.suppress(OSError):
            write_json(self._run / NAME, self._notes)


def fetching(run: Path) -> str:
    """Say what is still being fetched, from what the fetch last wrote; nothing when nothing is."""
    record = recall(run / "fetch.json")
    if record.get("state") == RunState.RUNNING:
        files = record["files"]
        left = [file for file in files if file["state"] not in OVER]
        names, all_names = ({file["model"] for file in some} for some in (left, files))
        size = sum(max(0, (file["total"] or 0) - file["bytes"]) for file in left)
    elif not record:  # it has only just begun
        chosen = recall(run / "decision.json").get("models", [])
        names = all_names = {model["id"] for model in chosen if model["fetch"]}
        size = 0
    else:
        return ""
    if not names:
        return ""
    amount = f", {human(size)}," if size else ""
    return f"fetching {len(names)} of {len(all_names)} models{amount} in the background"
