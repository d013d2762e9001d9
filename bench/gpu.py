#!/usr/bin/env python3
"""Which flags serve which card best: boots the rendered start.sh on a real GPU and times prompts.

    bench/gpu.py [--budget 480] [--out bench/results/gpu.json] [--only TEXT] [--check]
                 [--context dist/lazy] [--comfyui DIR] [--workspace /workspace]

Runs where there is an NVIDIA GPU, with or without a Docker engine and with or without a network: on a
bare machine it lays out /opt as the image does, from a rendered context (`./build.py render --variant
lazy`) and a ComfyUI tree, with the Python that runs it as /opt/venv. The models are full-size files of
random weights, made once (bench/gpu/weights.py).

Each case is one boot and a few prompts. A smaller card is imitated by another process that holds VRAM so
that N GiB stay free. Cases come in order of use; the budget (seconds) ends the run between two of them,
and the next run goes on with what the JSON lacks. A case that ran is never run again unless it is taken
out of the JSON. Standard library only: it must run with any Python. What it wrote is kept in
variants/flags/measured/.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

HERE = Path(__file__).resolve().parent
KIT = HERE / "gpu"
PORT = 8188
BOOT_LIMIT = 90  # seconds to the first answer of /system_stats
PROMPT_LIMIT = 150  # seconds
# A case is begun only when so many seconds of the budget are left.
CASE_SECONDS = 75
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
# What ComfyUI refuses to start without, and a prompt never uses.
STUBS = ("comfyui-frontend-package", "comfyui-workflow-templates", "comfyui-embedded-docs")
NEEDED = (
    "torch",
    "comfy_kitchen",
    "comfy_aimdo",
    "aiohttp",
    "av",
    "safetensors",
    "transformers",
    "spandrel",
    "torchsde",
)

DEFAULT = ""
CLASSIC = "--disable-dynamic-vram"


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


def pair(workflow: str, free_gib: int | None, prompts: int = 3) -> list[Case]:
    """Return the question that matters most, Dynamic VRAM or the classic loader, for one model and room."""
    return [Case(workflow, arguments, free_gib, prompts) for arguments in ("--enable-dynamic-vram", CLASSIC)]


CASES = [
    # The first boot on a machine fills caches of drivers and kernels; it says nothing about flags.
    Case("sdxl", "", None, 1, {"BENCH": "warm-up"}),
    *pair("sdxl", 12),
    *pair("wan14b-fp8", None, 2),
    *pair("sdxl", 24),
    *pair("wan14b-fp8", 24, 2),
    *pair("sdxl", 16),
    *pair("wan14b-fp8", 16, 2),
    *pair("sdxl", 10),
    *pair("wan14b-fp8", 48, 2),
    *pair("sdxl", None),
    *pair("wan14b-fp8", 12, 2),
    *pair("sdxl", 8),
    *pair("wan14b-fp16", None, 2),
    *pair("wan14b-fp16", 48, 2),
    *pair("wan14b-fp16", 32, 2),
    *pair("wan14b-fp16", 24, 2),
    *pair("sdxl", 48),
    Case("sdxl", "--highvram"),
    Case("sdxl", "--novram", prompts=1),
    Case("sdxl", "--lowvram --cpu-vae --preview-method auto", 8, 1),
]


def main(arguments: list[str] | None = None) -> int:
    """Run what the budget allows; returns 0, or 1 when something is missing or a case could not boot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", type=float, default=480, help="seconds, everything together")
    parser.add_argument(
        "--out", type=Path, default=HERE / "results" / "gpu.json", help="read, completed and written"
    )
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--check", action="store_true", help="say what is missing, and run nothing")
    parser.add_argument(
        "--context", type=Path, default=HERE.parent / "dist" / "lazy", help="a rendered variant"
    )
    parser.add_argument("--comfyui", type=Path, help="a ComfyUI tree, where /opt/ComfyUI is not there yet")
    parser.add_argument("--workspace", type=Path, default=Path("/workspace"))
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + options.budget

    problems = [*missing(options)]
    for problem in problems:
        print(f"bench/gpu.py: {problem}", file=sys.stderr)
    if problems or options.check:
        return int(bool(problems))
    lay_out(options.context, options.comfyui)
    results = load(options.out)
    results["machine"] = describe()
    logs = options.out.parent / "gpu-logs"
    logs.mkdir(parents=True, exist_ok=True)
    failed = False
    for case in CASES:
        if options.only not in case.name or case.name in results["cases"]:
            continue
        if deadline - time.monotonic() < CASE_SECONDS:
            print(f"bench/gpu.py: the budget ends before: {case.name}", file=sys.stderr)
            break
        make_models(case.workflow, options.workspace)
        result = measure(case, options.workspace, logs)
        failed = failed or "exit" in result
        results["cases"][case.name] = result
        save(options.out, results)
        print(json.dumps({"case": case.name, **{k: v for k, v in result.items() if k != "boot"}}), flush=True)
    print(table(results))
    return int(failed)


# --- what must be there ---------------------------------------------------------------------------------


def missing(options: argparse.Namespace) -> Iterator[str]:
    """Yield what the run lacks, a sentence each, before anything is started."""
    if shutil.which("nvidia-smi") is None:
        yield "nvidia-smi is not here, so no NVIDIA GPU can be measured."
    if os.geteuid() != 0:
        yield "it lays out /opt and /start.sh as the image does, so it must run as root."
    if not Path("/start.sh").exists() and not (options.context / "start.sh").is_file():
        yield f"{options.context} holds no rendered variant; run ./build.py render --variant lazy first."
    if not Path("/opt/ComfyUI/main.py").exists() and not (
        options.comfyui and (options.comfyui / "main.py").is_file()
    ):
        yield "ComfyUI is not here; give a tree of the pinned release with --comfyui DIR."
    script = (
        "import importlib.util, sys\n"
        "print(' '.join(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))"
    )
    absent = subprocess.run([python(), "-c", script, *NEEDED], capture_output=True, text=True, check=False)
    if absent.returncode or absent.stdout.strip():
        names = absent.stdout.strip() or absent.stderr.strip()
        yield f"{python()} lacks the packages {names}; give them by PYTHONPATH."


def python() -> str:
    """Return the Python that runs ComfyUI: the image's, or else this one."""
    return "/opt/venv/bin/python" if Path("/opt/venv/bin/python").exists() else sys.executable


def lay_out(context: Path, comfyui: Path | None) -> None:
    """Make /opt, /start.sh and /usr/local/bin as the image has them, where they are not there already."""
    if not Path("/opt/ComfyUI/main.py").exists() and comfyui is not None:
        shutil.copytree(comfyui, "/opt/ComfyUI")
    if not Path("/opt/venv").exists():
        Path("/opt/venv").symlink_to(Path(sys.prefix))
    if not Path("/start.sh").exists():
        shutil.copytree(context / "podkiln", "/opt/podkiln")
        for script in (context / "bin").iterdir():
            shutil.copy(script, Path("/usr/local/bin") / script.name)
            (Path("/usr/local/bin") / script.name).chmod(0o755)
        shutil.copy(context / "start.sh", "/start.sh")
        Path("/start.sh").chmod(0o755)
    shutil.copy(KIT / "random_conditioning.py", "/opt/ComfyUI/custom_nodes/bench_random_conditioning.py")
    stubs = Path("/opt/bench-stubs")
    requirements = Path("/opt/ComfyUI/requirements.txt").read_text(encoding="utf-8")
    for name in STUBS:
        module = name.replace("-", "_")
        found = re.search(rf"^{name}==(\S+)", requirements, re.MULTILINE)
        if (
            not found
            or subprocess.run(
                [python(), "-c", f"import {module}"], capture_output=True, check=False
            ).returncode
            == 0
        ):
            continue
        for folder in ("static", "templates", "docs"):
            (stubs / module / folder).mkdir(parents=True, exist_ok=True)
        (stubs / module / "__init__.py").touch()
        (stubs / module / "static" / "index.html").write_text(
            "<!doctype html><title>stub</title>", encoding="utf-8"
        )
        info = stubs / f"{module}-{found[1]}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {found[1]}\n", encoding="utf-8"
        )
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(stubs)]))
    # Stale or missing bytecode would be measured as ComfyUI's boot.
    trees = ["/opt/ComfyUI", *(entry for entry in os.environ["PYTHONPATH"].split(os.pathsep) if entry)]
    subprocess.run([python(), "-m", "compileall", "-q", "-j", "0", *trees], check=False, capture_output=True)


def make_models(workflow: str, workspace: Path) -> None:
    """Make the files of random weights that a workflow needs and the volume lacks."""
    for kind in WORKFLOW_FILES[workflow]:
        path = workspace / "models" / FILES[kind]
        if not path.exists():
            subprocess.run([python(), str(KIT / "weights.py"), "/opt/ComfyUI", kind, str(path)], check=True)


# --- one case -------------------------------------------------------------------------------------------


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


HOLD = """
import sys, time, torch
free, _ = torch.cuda.mem_get_info()
block = torch.empty(int(free - float(sys.argv[1]) * 2**30), dtype=torch.uint8, device="cuda")
print("held", flush=True)
time.sleep(3600)
"""


@contextlib.contextmanager
def held(free_gib: int | None) -> Iterator[int]:
    """Hold VRAM so that only `free_gib` GiB stay free; yields the MiB in use before ComfyUI starts."""
    holder = None
    try:
        if free_gib is not None:
            holder = subprocess.Popen(
                [python(), "-c", HOLD, str(free_gib)], stdout=subprocess.PIPE, text=True
            )
            if holder.stdout is None or not holder.stdout.readline():
                sys.exit(f"bench/gpu.py: VRAM could not be held so that {free_gib} GiB stay free.")
        yield int(smi("memory.used"))
    finally:
        if holder is not None:
            holder.kill()
            holder.wait()


class Peak(threading.Thread):
    """Polls the VRAM that ComfyUI holds beyond `base`, and its RAM without page cache; both in MiB."""

    def __init__(self, base: int) -> None:
        super().__init__(daemon=True)
        self.base, self.vram_mib, self.ram_mib = base, 0, 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Poll four times a second."""
        while not self._stop_asked.wait(0.25):
            with contextlib.suppress(ValueError, OSError):
                self.vram_mib = max(self.vram_mib, int(smi("memory.used")) - self.base)
            with contextlib.suppress(OSError):
                self.ram_mib = max(self.ram_mib, ram_of_comfyui())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_asked.set()
        self.join()


def ram_of_comfyui() -> int:
    """Return RssAnon + RssShmem of ComfyUI, MiB (proc(5)): of the largest process that runs main.py."""
    sizes = [0]
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and b"main.py" in (entry / "cmdline").read_bytes().split(b"\0"):
                status = (entry / "status").read_text(encoding="ascii", errors="replace")
                sizes.append(
                    sum(int(kib) for kib in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+)", status, re.MULTILINE))
                    // 1024
                )
    return max(sizes)


# --- small things ---------------------------------------------------------------------------------------


def smi(query: str) -> str:
    """Return one value of the first card."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()


def answer(path: str) -> Any:
    """Return ComfyUI's JSON answer, or None while there is none."""
    with contextlib.suppress(OSError, ValueError):
        address = f"http://127.0.0.1:{PORT}{path}"
        return json.loads(urllib.request.urlopen(address, timeout=2).read())
    return None


def describe() -> dict[str, str]:
    """Return what the figures hold for: card, driver, versions, date."""
    script = (
        "import torch, importlib.metadata as m\n"
        "print(torch.__version__, torch.version.cuda, m.version('comfy-aimdo'))"
    )
    versions = subprocess.run(
        [python(), "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    release = Path("/opt/ComfyUI/comfyui_version.py").read_text(encoding="utf-8")
    return {
        "gpu": smi("name"),
        "vram_mib": smi("memory.total"),
        "driver": smi("driver_version"),
        "compute_capability": smi("compute_cap"),
        "cpus": str(os.cpu_count()),
        "ram_mib": str(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20),
        "python": platform.python_version(),
        "torch": versions[0],
        "cuda": versions[1],
        "comfy_aimdo": versions[2],
        "comfyui": re.findall(r'__version__ = "([^"]+)"', release)[0],
        "date": datetime.now(UTC).date().isoformat(),
    }


def load(path: Path) -> dict[str, Any]:
    """Return the results so far, or empty ones."""
    if path.exists():
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return results
    return {"schema": 1, "machine": {}, "cases": {}}


def save(path: Path, results: dict[str, Any]) -> None:
    """Write the results so that an interrupted run loses none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def table(results: dict[str, Any]) -> str:
    """Return the cases as a Markdown table."""
    lines = [
        "| case | first s | later s | it/s | VRAM MiB | RAM MiB | out of memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results["cases"].items():
        first, *later = result.get("prompts_s") or ["-"]
        cells = [
            name,
            first,
            " ".join(map(str, later)) or "-",
            result.get("it_per_s", "-"),
            result.get("vram_peak_mib", "-"),
            result.get("ram_peak_mib") or "-",
            "yes" if result.get("out_of_memory") else "no",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
