"""One case of bench/gpu.py: start.sh booted with it, and its prompts timed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpu_kit.machine import KIT, python
from gpu_kit.memory import Peak, held

if TYPE_CHECKING:
    from pathlib import Path

PORT = 8188
BOOT_LIMIT = 90  # seconds to the first answer of /system_stats
PROMPT_LIMIT = 150  # seconds
FILES = {
    "sdxl": "checkpoints/bench-sdxl.safetensors",
    "wan-vae": "vae/bench-wan-vae.safetensors",
    "wan14b-fp8": "diffusion_models/bench-wan14b-fp8.safetensors",
    "wan14b-fp16": "diffusion_models/bench-wan14b-fp16.safetensors",
}
WORKFLOW_FILES = {
    "sdxl": ["sdxl"],
    "wan14b-fp8": ["wan-vae", "wan14b-fp8"],
    "wan14b-fp16": ["wan-vae", "wan14b-fp16"],
}


@dataclass(frozen=True)
class Case:
    """One boot: a workflow, ComfyUI's arguments (COMFYUI_ARGS), and the VRAM left free (GiB; None: all)."""

    workflow: str
    arguments: str
    free_gib: int | None = None
    prompts: int = 3
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return what identifies the case in the JSON."""
        room = "all" if self.free_gib is None else f"{self.free_gib} GiB"
        extra = "".join(f" {name}={value}" for name, value in self.environment.items())
        return f"{self.workflow}, {room} free, {self.arguments or 'nothing passed'}{extra}"


def make_models(workflow: str, workspace: Path) -> None:
    """Make the files of random weights that a workflow needs and the volume lacks."""
    for kind in WORKFLOW_FILES[workflow]:
        path = workspace / "models" / FILES[kind]
        if not path.exists():
            subprocess.run([python(), str(KIT / "weights.py"), "/opt/ComfyUI", kind, str(path)], check=True)


def measure(case: Case, workspace: Path, logs: Path) -> dict[str, Any]:
    """Boot, run the prompts, stop; returns seconds, MiB, and what start.sh decided."""
    with held(case.free_gib) as base:
        log_path = logs / (re.sub(r"[^a-z0-9]+", "-", case.name.lower()).strip("-") + ".log")
        with log_path.open("wb") as log:
            environment = {
                **os.environ,
                "WORKSPACE": str(workspace),
                "COMFYUI_ARGS": case.arguments,
                "MODELS": "none",
            }
            environment |= case.environment
            process = subprocess.Popen(
                ["/start.sh"], stdout=log, stderr=log, env=environment, start_new_session=True
            )
            try:
                result = run_prompts(case, process, base, log_path)
            finally:
                stop(process)
    text = log_path.read_text(encoding="utf-8", errors="replace")
    result["out_of_memory"] = bool(re.search(r"OutOfMemory|out of memory", text))
    rates = re.findall(r"([0-9.]+)(it/s|s/it)\]", text.replace("\r", "\n"))
    if rates:
        number, unit = rates[-1]
        result["it_per_s"] = round(float(number) if unit == "it/s" else 1 / float(number), 2)
    result["decided"] = re.findall(r"^podkiln: (Profile .*)$", text, re.MULTILINE)
    return result


def run_prompts(case: Case, process: subprocess.Popen[bytes], base: int, log: Path) -> dict[str, Any]:
    """Wait for ComfyUI and send the prompts; `base` is the VRAM in MiB that others hold."""
    started = time.monotonic()
    stats = None
    while stats is None and process.poll() is None and time.monotonic() - started < BOOT_LIMIT:
        stats = answer("/system_stats")
        time.sleep(0.05)
    if stats is None:
        return {"exit": process.poll(), "log": log.name}
    result: dict[str, Any] = {
        "ready_s": round(time.monotonic() - started, 2),
        "argv": stats["system"]["argv"][1:],
    }
    with Peak(base) as peak:
        seconds = []
        for number in range(case.prompts):
            begun = time.monotonic()
            done = prompt(case.workflow, 100 + number)
            seconds.append(round(time.monotonic() - begun, 2))
            if done.returncode:
                result["failed"] = done.stderr.strip().splitlines()[-1:]
                break
    result |= {"prompts_s": seconds, "vram_peak_mib": peak.vram_mib, "ram_peak_mib": peak.ram_mib}
    return result


def prompt(workflow: str, seed: int) -> subprocess.CompletedProcess[str]:
    """Run a workflow with a seed through podkiln-comfy."""
    settings = ["--set", f"3.seed={seed}"]
    command = [
        "/usr/local/bin/podkiln-comfy",
        "run",
        str(KIT / f"{workflow}.json"),
        *settings,
        "--out",
        "/tmp/bench-out",
    ]
    environment = {**os.environ, "PODKILN_ROOT": "/opt/podkiln"}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=PROMPT_LIMIT
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {PROMPT_LIMIT} s")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End start.sh as a platform does, and whatever of it is left."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answer(path: str) -> Any:
    """Return ComfyUI's JSON answer, or None while there is none."""
    with contextlib.suppress(OSError, ValueError):
        address = f"http://127.0.0.1:{PORT}{path}"
        return json.loads(urllib.request.urlopen(address, timeout=2).read())
    return None
