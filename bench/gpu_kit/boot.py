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

from gpu_kit.memory import Peak, held
from gpu_kit.paths import KIT, port

if TYPE_CHECKING:
    from collections.abc import Iterator

BOOT_LIMIT = 90  # seconds to the first answer of /system_stats
PROMPT_LIMIT = 150  # seconds
OUT = Path("/tmp/bench-out")
START = Path("/start.sh")
STOP_SECONDS = 20
_SETPRIV = "/usr/bin/setpriv"


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
        # It ends with this program even where that is killed.
        tied = [_SETPRIV, "--pdeathsig", "TERM", "--"] if os.access(_SETPRIV, os.X_OK) else []
        command = [*tied, str(START)]
        process = subprocess.Popen(command, stdout=file, stderr=file, env=asked, start_new_session=True)
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


def run_prompts(case: Case, process: subprocess.Popen[bytes], base: int | None, log: Path) -> dict[str, Any]:
    """Wait for ComfyUI and send the prompts; `base` is the VRAM in MiB that others hold, if that is told."""
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
                result["failed"] = [
                    (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
                ]
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
    """End start.sh as a platform does, and whatever of its session is left."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for number in _session(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.wait()


def _session(leader: int) -> list[int]:
    """Return the processes of a session, its leader's end or not (proc_pid_stat(5), field 6)."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError, ValueError):
            if entry.name.isdigit():
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[3]) == leader and fields[0] != b"Z":
                    found.append(int(entry.name))
    return found


def answer(path: str) -> Any:
    """Return ComfyUI's JSON answer, or None while there is none."""
    with contextlib.suppress(OSError, ValueError):
        address = f"http://127.0.0.1:{port()}{path}"
        return json.loads(urllib.request.urlopen(address, timeout=2).read())
    return None
