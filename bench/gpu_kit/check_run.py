"""The checks of a real card, without pytest: one command that first says what it lacks.

    tests/gpu/run.py [--image IMAGE | --context dist/lazy --comfyui DIR] [--budget 540] [--only NAME ...]
                     [--out bench/results/gpu-checks.json] [--workspace /workspace] [--check] [--cpu]

`make gpu GPU_ARGS="..."` calls it, and the tests marked gpu make the same checks. With --image they run in
that image; without, on a bare machine, laid out as bench/gpu.py does. --cpu rehearses what needs no card.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from gpu_kit import boot, checks, machine, results
from gpu_kit.memory import HeldError
from gpu_kit.real_pod import RealPod

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "gpu" / "run.py"
CHECK_SECONDS = 60
DISK_GB = 14


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; returns 0, or 1 where one failed, was not reached, or something is missing."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    deadline = time.monotonic() + options.budget
    if options.image:
        return machine.in_image(PROGRAM, options)
    problems = [*machine.missing(options)]
    for problem in problems:
        print(f"tests/gpu/run.py: {problem}", file=sys.stderr)
    if problems or options.check:
        return int(bool(problems))
    names = [name for name in checks.CHECKS if not options.only or name in options.only]
    if options.cpu:
        names = [name for name in names if name in checks.WITHOUT_A_CARD]
    pod = prepare(options)
    here = machine.describe(cpu=options.cpu)
    made: dict[str, dict[str, Any]] = {}
    for name in names:
        made |= run(pod, [name], deadline)
        results.save(options.out, {"schema": 1, "machine": here, "checks": made})
    return int(any(each["result"] in ("failed", "not reached") for each in made.values()))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--budget", type=float, default=540, help="seconds, everything together")
    parser.add_argument("--only", nargs="+", choices=list(checks.CHECKS), help="these checks")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "gpu-checks.json")
    machine.options_of(parser)
    options = parser.parse_args(arguments)
    options.disk_gb = DISK_GB
    return options


def prepare(options: argparse.Namespace) -> RealPod:
    """Lay out the machine, make the models, and return it as a pod."""
    machine.lay_out(options.context, options.comfyui)
    # SDXL takes a CPU minutes to make, and more to run.
    classes = [each for each in checks.CLASSES if not (options.cpu and each == checks.LARGE)]
    for workflow in classes:
        boot.make_models(workflow, options.workspace)
    logs = options.out.parent / "gpu-logs"
    logs.mkdir(parents=True, exist_ok=True)
    return RealPod(options.workspace, logs, classes, cpu=options.cpu)


def run(pod: checks.Pod, names: list[str], deadline: float) -> dict[str, dict[str, Any]]:
    """Make the checks while the budget lasts; a line and an entry each."""
    made = {}
    for name in names:
        begun = time.monotonic()
        result, said = "passed", ""
        try:
            if deadline - begun < CHECK_SECONDS:
                result, said = "not reached", "the budget ended before"
            else:
                said = checks.CHECKS[name](pod)
        except checks.NotHereError as reason:
            result, said = "not here", str(reason)
        except (checks.FaultError, HeldError) as fault:
            result, said = "failed", str(fault)
        except Exception as bug:  # noqa: BLE001 - of a check or of this machine: the others are made all the same
            result, said = "failed", f"{type(bug).__name__}: {bug}"
        seconds = round(time.monotonic() - begun, 1)
        made[name] = {"result": result, "said": said, "seconds": seconds}
        print(f"{result:12} {name} ({seconds:.0f} s): {said}", flush=True)
    return made
