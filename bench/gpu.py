#!/usr/bin/env python3
"""Which flags serve which card best: boots the rendered start.sh on a real GPU and times prompts.

    bench/gpu.py [--budget 480] [--out bench/results/gpu.json] [--only TEXT] [--check] [--merge FILE ...]
                 [--image IMAGE | --context dist/lazy --comfyui DIR] [--workspace /workspace] [--cpu]

Runs where there is an NVIDIA GPU, with or without a Docker engine and with or without a network. With
--image it runs in that image; without, on a bare machine, it lays out /opt as the image does, from a rendered
context (`./build.py render --variant lazy`) and a ComfyUI tree, with the Python that runs it as /opt/venv.
The models are full-size files of random weights, made once (bench/gpu_kit/weights.py).

Each case is one boot and a few prompts. A smaller card is imitated by another process that holds VRAM so
that N GiB stay free. Cases come in order of use; the budget (seconds) ends the run between two of them,
and the next run goes on with what the JSON lacks. A case that was measured is never run again unless it is
taken out of the JSON, one that failed is; --merge adds those of other runs on the same card, driver and
releases. --cpu rehearses all of it without a GPU, with small models: its figures say nothing. Standard
library only, for Python 3.11 and newer. What it wrote is kept in variants/flags/measured/.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - of a rented machine; what is imported below needs it
    sys.exit("bench/gpu.py: Python 3.11 or newer is needed: run it with one that has torch for CUDA.")

import argparse
import json
import time
from pathlib import Path
from typing import Any

from gpu_kit import ending, layout, machine, models, results
from gpu_kit.boot import Case, measure
from gpu_kit.memory import HeldError
from gpu_kit.smi import MachineError

HERE = Path(__file__).resolve().parent
# A case is begun only when so many seconds of the budget are left.
CASE_SECONDS = 75
CLASSIC = "--disable-dynamic-vram"
# Of a card's memory, what a case may ask to be left free: a little is always held.
MOST_FREE = 0.97
MODES = ("full", "model_full_load_and_qfloat8", "model_cpu_offload", "sequential_cpu_offload")


def pair(workflow: str, free_gib: int | None, prompts: int = 3) -> list[Case]:
    """Return the question that matters most, Dynamic VRAM or the classic loader, for one model and room."""
    return [Case(workflow, arguments, free_gib, prompts) for arguments in ("--enable-dynamic-vram", CLASSIC)]


CASES = [
    # The first boot on a machine fills caches of drivers and kernels; it says nothing about flags.
    Case("sdxl", "", None, 1, {"BENCH": "warm-up"}),
    *(case for room in (None, 8, 24) for case in pair("sdxl", room)),
    *(case for room in (None, 24) for case in pair("wan14b-fp8", room, 2)),
    *(case for room in (12, 16, 48) for case in pair("sdxl", room)),
    *(case for room in (12, 16, 48) for case in pair("wan14b-fp8", room, 2)),
    *(Case("sdxl", "", None, 2, {"GPU_MEMORY_MODE": mode}) for mode in MODES),
    Case("sdxl", "--highvram"),
    Case("sdxl", "--lowvram --cpu-vae --preview-method auto", 8, 1),
    Case("sdxl", "--disable-xformers --use-split-cross-attention"),
    *pair("sdxl", 10),
    *(case for room in (None, 48, 32, 24) for case in pair("wan14b-fp16", room, 2)),
]
REHEARSAL = [
    Case("wan-small", "--cpu --disable-dynamic-vram", None, 2),
    Case("flux-small", "--cpu", None, 1),
    Case("sd15", "--cpu", None, 1),
]


def main(arguments: list[str] | None = None) -> int:
    """Run what the budget allows; returns 0, 1 when something is missing or failed, 2 for a wrong line."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    return ending.run("bench/gpu.py", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    deadline = time.monotonic() + options.budget
    if options.merge:
        return merge(options.out, options.merge)
    cases = [case for case in (REHEARSAL if options.cpu else CASES) if options.only in case.name]
    if not cases:
        say(f"--only: no case's name holds {options.only!r}; they are like {CASES[1].name!r}.")
        return 2
    if options.image:
        return machine.in_image(HERE / "gpu.py", options)
    found = load(options.out)
    cases = [case for case in cases if not results.measured(found["cases"].get(case.name))]
    options.workflows = {case.workflow for case in cases}
    problems = [*machine.missing(options)]
    for problem in problems:
        say(problem)
    if problems or options.check:
        return int(bool(problems))
    layout.lay_out(options.context or machine.CONTEXT, options.comfyui)
    found["machine"] = same(options.out, found["machine"], machine.describe(cpu=options.cpu))
    failed = run(cases, options, found, deadline)
    print(results.table(found))
    return int(failed)


def load(out: Path) -> dict[str, Any]:
    """Return the results so far. Raises MachineError."""
    try:
        return results.load(out)
    except ValueError as wrong:
        raise MachineError(f"{out} cannot be gone on with, {wrong}; give another --out.") from None


def same(out: Path, before: dict[str, str], here: dict[str, str]) -> dict[str, str]:
    """Return this machine, where results so far are of one like it. Raises MachineError."""
    if difference := results.differs(before, here):
        raise MachineError(
            f"{out} cannot be gone on with, it was measured elsewhere: {difference}; give another --out."
        )
    return here


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--budget", type=machine.seconds, default=480, help="seconds, everything together")
    parser.add_argument(
        "--out", type=Path, default=HERE / "results" / "gpu.json", help="read, completed and written"
    )
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--merge", type=Path, nargs="+", help="add these results to --out, and run nothing")
    machine.options_of(parser)
    return parser.parse_args(arguments)


def run(cases: list[Case], options: argparse.Namespace, found: dict[str, Any], deadline: float) -> bool:
    """Run cases while the budget lasts; returns whether one of them was not measured."""
    logs = options.out.parent / "gpu-logs"
    logs.mkdir(parents=True, exist_ok=True)
    failed = False
    unmade: dict[str, MachineError] = {}
    for case in cases:
        if not fits(case, found["machine"]):
            say(f"the card has no {case.free_gib} GiB to leave free: {case.name} is left out.")
            continue
        if deadline - time.monotonic() < CASE_SECONDS:
            say(f"the budget ends before: {case.name}")
            break
        try:
            if reason := unmade.get(case.workflow):
                raise reason
            found["files"][case.workflow] = models.make(case.workflow, options.workspace)
            result = measure(case, options.workspace, logs)
        except (HeldError, MachineError) as reason:
            if case.workflow not in found["files"]:
                unmade[case.workflow] = MachineError(*reason.args)
            say(f"{case.name} is left out: {reason}")
            failed = True
            continue
        failed = failed or not results.measured(result)
        found["cases"][case.name] = result
        results.save(options.out, found)
        print(json.dumps({"case": case.name, **result}), flush=True)
    return failed


def fits(case: Case, here: dict[str, str]) -> bool:
    """Whether the card is large enough for a case that wants VRAM left free."""
    return case.free_gib is None or case.free_gib * 1024 <= int(here.get("vram_mib", 0)) * MOST_FREE


def merge(out: Path, others: list[Path]) -> int:
    """Add other results to those in `out`; returns 0. Raises MachineError where one does not fit."""
    found = load(out)
    for other in others:
        try:
            if not other.exists():
                raise ValueError("it is not there")  # noqa: TRY301 - the same sentence
            results.merge(found, results.load(other))
        except ValueError as wrong:
            raise MachineError(f"{other} is not merged into {out}: {wrong}.") from None
    results.save(out, found)
    print(results.table(found))
    return 0


def say(sentence: str) -> None:
    """Tell a person."""
    print(f"bench/gpu.py: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
