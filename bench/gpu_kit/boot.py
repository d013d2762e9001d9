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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_kit.machine import KIT, port, python
from gpu_kit.memory import Peak, held

if TYPE_CHECKING:
    from collections.abc import Iterator

BOOT_LIMIT = 90  # seconds to the first answer of /system_stats
PROMPT_LIMIT = 150  # seconds
OUT = Path("/tmp/bench-out")
FILES = {
    "sdxl": "checkpoints/bench-sdxl.safetensors",
    "wan-vae": "vae/bench-wan-vae.safetensors",
    "wan14b-fp8": "diffusion_models/bench-wan14b-fp8.safetensors",
    "wan14b-fp16": "diffusion_models/bench-wan14b-fp16.safetensors",
    "sd15": "checkpoints/bench-sd15.safetensors",
    "wan-small": "diffusion_models/bench-wan-small.safetensors",
    "flux-small": "diffusion_models/bench-flux-small.safetensors",
    "flux-vae": "vae/bench-flux-vae.safetensors",
}
WORKFLOW_FILES = {
    "sdxl": ["sdxl"],
    "wan14b-fp8": ["wan-vae", "wan14b-fp8"],
    "wan14b-fp16": ["wan-vae", "wan14b-fp16"],
    "sd15": ["sd15"],
    "wan-small": ["wan-vae", "wan-small"],
    "flux-small": ["flux-vae", "flux-small"],
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


def make_models(workflow: str, workspace: Path) -> int:
    """Make the files of random weights that a workflow needs and the volume lacks; returns their bytes."""
    size = 0
    for kind in WORKFLOW_FILES[workflow]:
        path = workspace / "models" / FILES[kind]
        if not path.exists():
            command = [python(), str(KIT / "weights.py"), "/opt/ComfyUI", kind, str(path)]
            subprocess.run(command, check=True)
        size += path.stat().st_size
    return size


def measure(case: Case, workspace: Path, logs: Path) -> dict[str, Any]:
    """Boot, run the prompts, stop; returns seconds, MiB, and what start.sh decided."""
    log = logs / (re.sub(r"[^a-z0-9]+", "-", case.name.lower()).strip("-") + ".log")
    asked = {"COMFYUI_ARGS": case.arguments, **case.environment}
    with held(case.free_gib) as base, started(workspace, log, asked) as process:
        result = run_prompts(case, process, base, log)
    return result | read_log(log.read_text(encoding="utf-8", errors="replace"))


@contextlib.contextmanager
def started(workspace: Path, log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start start.sh without models of its own, its log in a file; ended as a platform ends it."""
    asked = {**os.environ, "WORKSPACE": str(workspace), "MODELS": "none", **environment}
    asked.pop("PYTHONDONTWRITEBYTECODE", None)  # in_image sets it, and a pod writes its bytecode
    with log.open("wb") as file:
        process = subprocess.Popen(["/start.sh"], stdout=file, stderr=file, env=asked, start_new_session=True)
        try:
            yield process
        finally:
            stop(process)


def read_log(text: str) -> dict[str, Any]:
    """Return what ComfyUI's log says: out of memory or not, steps a second, MiB of weights."""
    found: dict[str, Any] = {"out_of_memory": bool(re.search(r"OutOfMemory|out of memory", text))}
    if rates := re.findall(r"([0-9.]+)(it/s|s/it)\]", text.replace("\r", "\n")):
        number, unit = rates[-1]
        found["it_per_s"] = round(float(number) if unit == "it/s" else 1 / float(number), 2)
    # comfy/model_patcher.py, of the classic loader alone: "loaded completely; 9.9 MB usable, 9.9 MB loaded".
    loaded = re.findall(r"loaded (completely|partially);.*? ([0-9.]+) MB loaded", text)
    found["loaded_mib"] = [[how, round(float(mib))] for how, mib in loaded]
    found["decided"] = re.findall(r"^podkiln: (Profile .*)$", text, re.MULTILINE)
    return found


def wait_ready(process: subprocess.Popen[bytes], limit: float = BOOT_LIMIT) -> dict[str, Any] | None:
    """Return ComfyUI's first answer to /system_stats, or None where it ends or the limit passes."""
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() - begun < limit:
        if stats := answer("/system_stats"):
            found: dict[str, Any] = stats
            return found
        time.sleep(0.05)
    return None


def run_prompts(case: Case, process: subprocess.Popen[bytes], base: int, log: Path) -> dict[str, Any]:
    """Wait for ComfyUI and send the prompts; `base` is the VRAM in MiB that others hold."""
    begun = time.monotonic()
    stats = wait_ready(process)
    if stats is None:
        return {"exit": process.poll(), "log": log.name}
    result: dict[str, Any] = {
        "ready_s": round(time.monotonic() - begun, 2),
        "argv": stats["system"]["argv"][1:],
    }
    with Peak(base) as peak:
        seconds = []
        for number in range(case.prompts):
            sent = time.monotonic()
            done = prompt(case.workflow, 100 + number)
            seconds.append(round(time.monotonic() - sent, 2))
            if done.returncode:
                result["failed"] = done.stderr.strip().splitlines()[-1:]
                break
    result |= {"prompts_s": seconds, "vram_peak_mib": peak.vram_mib, "ram_peak_mib": peak.ram_mib}
    return result


def prompt(workflow: str, seed: int, out: Path = OUT) -> subprocess.CompletedProcess[str]:
    """Run a workflow with a seed through podkiln-comfy."""
    settings = ["--set", f"3.seed={seed}"]
    command = [
        "/usr/local/bin/podkiln-comfy",
        "run",
        str(KIT / f"{workflow}.json"),
        *settings,
        "--out",
        str(out),
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
        address = f"http://127.0.0.1:{port()}{path}"
        return json.loads(urllib.request.urlopen(address, timeout=2).read())
    return None
