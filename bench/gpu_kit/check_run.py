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

from gpu_kit import checks, ending, layout, machine, models, results
from gpu_kit.memory import HeldError
from gpu_kit.real_pod import RealPod
from gpu_kit.smi import MachineError

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "gpu" / "run.py"
CHECK_SECONDS = 60
_NAME = "tests/gpu/run.py"


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; returns 0, or 1 where one failed, was not reached, or something is missing."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    return ending.run(_NAME, lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    deadline = time.monotonic() + options.budget
    if options.image:
        return machine.in_image(PROGRAM, options)
    names = [name for name in checks.CHECKS if not options.only or name in options.only]
    if options.cpu:
        names = [name for name in names if name in checks.WITHOUT_A_CARD]
        if not names:
            print(f"{_NAME}: --cpu rehearses {' and '.join(checks.WITHOUT_A_CARD)} alone.", file=sys.stderr)
            return 2
    problems = [*machine.missing(options)]
    for problem in problems:
        print(f"{_NAME}: {problem}", file=sys.stderr)
    if problems or options.check:
        return int(bool(problems))
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
    parser.add_argument("--budget", type=machine.seconds, default=540, help="seconds, everything together")
    parser.add_argument("--only", nargs="+", choices=list(checks.CHECKS), help="these checks")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "gpu-checks.json")
    machine.options_of(parser)
    options = parser.parse_args(arguments)
    # SDXL takes a CPU minutes to make, and more to run.
    options.workflows = [each for each in checks.CLASSES if not (options.cpu and each == checks.LARGE)]
    return options


def prepare(options: argparse.Namespace) -> RealPod:
    """Lay out the machine, make the models, and return it as a pod."""
    layout.lay_out(options.context or machine.CONTEXT, options.comfyui)
    for workflow in options.workflows:
        models.make(workflow, options.workspace)
    logs = options.out.parent / "gpu-logs"
    logs.mkdir(parents=True, exist_ok=True)
    return RealPod(options.workspace, logs, options.workflows, cpu=options.cpu)


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
        except (checks.FaultError, HeldError, MachineError) as fault:
            result, said = "failed", str(fault)
        except Exception as bug:  # noqa: BLE001 - of a check or of this machine: the others are made all the same
            result, said = "failed", f"{type(bug).__name__}: {bug}"
        seconds = round(time.monotonic() - begun, 1)
        made[name] = {"result": result, "said": said, "seconds": seconds}
        print(f"{result:12} {name} ({seconds:.0f} s): {said}", flush=True)
    return made
