#!/usr/bin/env python3
"""Which flags serve which card best: boots the rendered start.sh on a real GPU and times prompts.

    bench/gpu.py [--budget 480] [--out bench/results/gpu.json] [--only TEXT] [--check]
                 [--context dist/lazy] [--comfyui DIR] [--workspace /workspace]

Runs where there is an NVIDIA GPU, with or without a Docker engine and with or without a network: on a
bare machine it lays out /opt as the image does, from a rendered context (`./build.py render --variant
lazy`) and a ComfyUI tree, with the Python that runs it as /opt/venv. The models are full-size files of
random weights, made once (bench/gpu_kit/weights.py).

Each case is one boot and a few prompts. A smaller card is imitated by another process that holds VRAM so
that N GiB stay free. Cases come in order of use; the budget (seconds) ends the run between two of them,
and the next run goes on with what the JSON lacks. A case that ran is never run again unless it is taken
out of the JSON. Standard library only: it must run with any Python. What it wrote is kept in
variants/flags/measured/.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from gpu_kit import machine
from gpu_kit.boot import Case, make_models, measure

HERE = Path(__file__).resolve().parent
# A case is begun only when so many seconds of the budget are left.
CASE_SECONDS = 75
CLASSIC = "--disable-dynamic-vram"


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

    problems = [*machine.missing(options)]
    for problem in problems:
        print(f"bench/gpu.py: {problem}", file=sys.stderr)
    if problems or options.check:
        return int(bool(problems))
    machine.lay_out(options.context, options.comfyui)
    results = load(options.out)
    results["machine"] = machine.describe()
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
