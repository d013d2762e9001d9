"""This machine as a pod: start.sh on the real card, prompts through podkiln-comfy. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_kit import boot, memory, smi
from gpu_kit.checks import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DECISION = Path("/run/podkiln/decision.json")


class RealBoot:
    """One start of start.sh."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, pictures: Path) -> None:
        self._process, self._log, self._pictures = process, log, pictures
        self._begun = time.monotonic()
        self.stats: Mapping[str, Any] | None = boot.wait_ready(process)
        self.decision: Mapping[str, Any] = {}
        if self.stats is not None:
            self.decision = json.loads(DECISION.read_text(encoding="utf-8"))

    @property
    def exit_code(self) -> int | None:
        """Return start.sh's exit code; None while it runs."""
        return self._process.poll()

    @property
    def seconds(self) -> float:
        """Return how long ago it was started."""
        return time.monotonic() - self._begun

    @property
    def comfyui_pid(self) -> int | None:
        """Return ComfyUI's process id."""
        return memory.pid_of_comfyui()

    def log(self) -> str:
        """Return all that was logged."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def prompt(self, workflow: str, seed: int) -> tuple[str | None, Sequence[Path]]:
        """Run a workflow; returns what went wrong, as a line, and the pictures."""
        out = self._pictures / f"{workflow}-{time.monotonic_ns()}"
        done = boot.prompt(workflow, seed, out)
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1], ()
        return None, sorted(out.rglob("*.png"))


class RealPod:
    """This machine, laid out as the image is."""

    def __init__(
        self, workspace: Path, logs: Path, classes: Sequence[str] = CLASSES, *, cpu: bool = False
    ) -> None:
        self._workspace, self._logs, self._cpu = workspace, logs, cpu
        self.classes = classes
        self._starts = 0

    @contextlib.contextmanager
    def boot(self, **environment: str) -> Iterator[RealBoot]:
        """Start start.sh with these variables, and end it afterwards."""
        self._starts += 1
        if self._cpu:
            environment["COMFYUI_ARGS"] = f"{environment.get('COMFYUI_ARGS', '')} --cpu"
        log = self._logs / f"start-{self._starts}.log"
        with boot.started(self._workspace, log, environment) as process:
            yield RealBoot(process, log, self._logs)

    def explain(self, **environment: str) -> dict[str, Any]:
        """Return what start.sh would decide; nothing is started or fetched. Raises MachineError."""
        asked = {**os.environ, "WORKSPACE": str(self._workspace), **environment}
        if not smi.slices():  # of several cards, the one whose free memory is asked for here
            asked.setdefault(smi.VISIBLE, smi.card()["uuid"])
        command = [str(boot.START), "--explain"]
        done = subprocess.run(command, env=asked, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise smi.MachineError(f"start.sh --explain failed with {done.returncode}: {last}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def free_mib(self) -> int | None:
        """Return the VRAM that nobody holds, as nvidia-smi tells it; None where it does not."""
        with contextlib.suppress(smi.MachineError):
            return smi.mib("memory.free")
        return None

    def held(self, free_gib: float | None) -> contextlib.AbstractContextManager[object]:
        """Hold VRAM, so that so much stays free; None holds nothing."""
        return memory.held(free_gib)

    def cards(self) -> list[dict[str, str]]:
        """Return the cards, by nvidia-smi's fields."""
        return smi.cards()

    def slices(self) -> list[str]:
        """Return the UUIDs of MIG slices."""
        return smi.slices()
