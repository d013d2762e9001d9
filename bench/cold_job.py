#!/usr/bin/env python3
"""How long a serverless worker takes from its container's start to its first job's answer.

    bench/cold_job.py [--image IMAGE] [--workflow FILE] [--warm-up FILE] [--comfyui DIR]
                      [--env NAME=VALUE ...] [--command COMMAND] [--against COMMAND] [--rounds 5]
                      [--limit 1.1] [--against-limit 1.0]

A job waits in the queue of an endpoint that is played here, before the real runpod SDK; then the worker is
started, each time as a fresh container, in turns:

    cold      as it is
    warm      with the job's workflow, or that of --warm-up, as WARMUP_WORKFLOW
    against   another worker: COMMAND is run in a shell with RunPod's variables, and ended by SIGTERM. One in
              a container gets them by name: `docker run --rm --env RUNPOD_WEBHOOK_GET_JOB ...`

A second job follows the first. A job's own time is from a worker's taking it to its answer. The workflow is
in the form of ComfyUI's Export (API), by default a blurred picture, which needs no model and takes a second
or two: in a job of some milliseconds the first connection to the platform is most of it. It may hold
`__SEED__` where each job is to be another one; without it ComfyUI answers the second job from its memory.

Printed are medians. Gated: with a warm-up, the first job's own time by the second's (--limit); with
--against, the time to the first answer of `cold` by that of the other worker (--against-limit). Both should
have the same ComfyUI on the same processor: --comfyui puts another tree in the place of the image's, and
--command starts podkiln's worker as --against does the other one, where no image of it is at hand.

Needs: the packages of the tests, and without --command docker and an image of `serve: runpod`
(`./build.py --variant serverless --load`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from containers import Container, gateway
from servers.runpod_endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from servers.runpod_endpoint import Job

IMAGE = "localhost/podkiln:serverless-0.33.0-cuda-13.0"
SEED = "__SEED__"
PICTURE = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 1024, "height": 1024, "batch_size": 1, "color": SEED},
    },
    "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 31, "sigma": 8.0}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "bench"}},
}
PATIENCE = 600.0
_LAST = 30.0  # seconds that another worker may take to end


@dataclass(frozen=True)
class Times:
    """What a start took, in seconds: to the first answer, and of each job itself."""

    answer: float
    first: float
    second: float


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", default=IMAGE, help="an image with `serve: runpod`")
    parser.add_argument("--workflow", type=Path, metavar="FILE", help="what the jobs are")
    parser.add_argument("--warm-up", type=Path, metavar="FILE", help="what is run before; default: the same")
    parser.add_argument("--comfyui", type=Path, metavar="DIR", help="a ComfyUI tree to start instead")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="of the containers")
    parser.add_argument("--command", metavar="COMMAND", help="starts podkiln's worker, without a container")
    parser.add_argument("--against", metavar="COMMAND", help="starts another worker")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=1.1, help="first job with a warm-up by the second")
    parser.add_argument("--against-limit", type=float, default=1.0, help="first answer by the other's")
    options = parser.parse_args(arguments)
    if not options.command:
        harness.need("docker")
    host = "127.0.0.1" if options.command else gateway()
    given = dict(each.partition("=")[::2] for each in options.env)
    workflow = read(options.workflow)
    warm_up = read(options.warm_up) if options.warm_up else workflow

    times: dict[str, list[Times]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "warm_up.json")
        path.write_text(json.dumps(seeded(warm_up, 0)))
        path.chmod(0o644)
        mounts = {str(path): "/warm_up.json:ro"}
        if options.comfyui:
            mounts[str(options.comfyui.resolve())] = "/opt/ComfyUI"
        starts: dict[str, Callable[[Endpoint], contextlib.AbstractContextManager[str]]] = {
            "cold": lambda endpoint: in_container(options.image, endpoint, given, mounts),
            "warm": lambda endpoint: in_container(
                options.image, endpoint, {**given, "WARMUP_WORKFLOW": "/warm_up.json"}, mounts
            ),
        }
        if options.command:
            warm = {**given, "WARMUP_WORKFLOW": str(path)}
            starts["cold"] = lambda endpoint: by_command(options.command, endpoint, given)
            starts["warm"] = lambda endpoint: by_command(options.command, endpoint, warm)
        if options.against:
            starts["against"] = lambda endpoint: by_command(options.against, endpoint, given)
        for number in range(options.rounds + 1):  # the first one warms the page cache
            for way, start in starts.items():
                harness.tell(f"round {number} of {options.rounds}: {way}")
                found = measure(start, workflow, host)
                if number or not options.rounds:
                    times[way].append(found)
    print(
        f"{options.command or options.image}, medians of {options.rounds} rounds, in seconds\n{table(times)}"
    )
    return harness.conclude(limits(times, options.limit, options.against_limit))


def read(path: Path | None) -> dict[str, Any]:
    """Return a workflow; without a file, the small picture."""
    try:
        return dict(json.loads(path.read_text())) if path else PICTURE
    except (OSError, ValueError) as error:
        harness.fail(f"{path} is not a workflow in the form of Export (API): {error}")


def seeded(workflow: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a workflow with a number in the place of each `__SEED__`."""
    return dict(json.loads(json.dumps(workflow).replace(f'"{SEED}"', str(number))))


def measure(
    start: Callable[[Endpoint], contextlib.AbstractContextManager[str]], workflow: dict[str, Any], host: str
) -> Times:
    """Let a job wait, start a worker, and give it a second one; the endpoint listens on `host`."""
    with Endpoint(host=host) as endpoint:
        first = endpoint.submit({"workflow": seeded(workflow, 1)})
        begun = time.monotonic()
        with start(endpoint) as name:
            answered(endpoint, first, name)
            second = endpoint.submit({"workflow": seeded(workflow, 2)})
            answered(endpoint, second, name)
        return Times(first.ended - begun, first.ended - first.taken, second.ended - second.taken)


def answered(endpoint: Endpoint, job: Job, name: str) -> None:
    """Wait for a job's answer; one that failed is the end of all."""
    try:
        shown = endpoint.end(job, PATIENCE)
    except AssertionError:
        harness.fail(f"{name} has not answered a job within {PATIENCE:.0f} s")
    if shown["status"] != "COMPLETED":
        harness.fail(f"{name} has failed a job: {shown.get('error')}")


@contextlib.contextmanager
def in_container(
    image: str, endpoint: Endpoint, given: Mapping[str, str], mounts: Mapping[str, str]
) -> Iterator[str]:
    """Start our worker as a container; yields its name."""
    environ = {"MODELS": "none", **endpoint.environment, **given}
    with Container(image, env=environ, mounts=mounts):
        yield image


@contextlib.contextmanager
def by_command(command: str, endpoint: Endpoint, given: Mapping[str, str]) -> Iterator[str]:
    """Start a worker by a command of a shell; yields how it is called."""
    environ = {**os.environ, **endpoint.environment, **given}
    process = subprocess.Popen(command, shell=True, env=environ, start_new_session=True)  # noqa: S602 - is asked for
    try:
        yield f"the worker of {command!r}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        late = time.monotonic() + _LAST
        while _is_running(process) and time.monotonic() < late:
            time.sleep(0.1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_running(leader: subprocess.Popen[bytes]) -> bool:
    """Tell whether anything of a command still runs: its shell may end before what it started does."""
    leader.poll()
    try:
        os.killpg(leader.pid, 0)
    except ProcessLookupError:
        return False
    return True


def table(times: Mapping[str, list[Times]]) -> str:
    """Return the medians of all ways, and the spread of what matters most."""
    head = ["way", "first answer", "(from", "to)", "first job itself", "second job itself"]
    rows = []
    for way, found in times.items():
        answers = [each.answer for each in found]
        firsts, seconds = [each.first for each in found], [each.second for each in found]
        figures = (statistics.median(answers), min(answers), max(answers))
        rows.append(
            [
                way,
                *(f"{figure:.2f}" for figure in figures),
                *(f"{statistics.median(each):.3f}" for each in (firsts, seconds)),
            ]
        )
    return harness.table(head, rows)


def limits(times: Mapping[str, list[Times]], warm: float, against: float) -> list[harness.Limit]:
    """Return what is gated."""
    ratio = statistics.median(each.first / each.second for each in times["warm"])
    found = [harness.Limit("with a warm-up, the first job's own time by the second's", ratio, warm)]
    if others := times.get("against"):
        ours, theirs = (statistics.median(each.answer for each in way) for way in (times["cold"], others))
        found.append(harness.Limit("time to the first answer by the other worker's", ours / theirs, against))
    return found


if __name__ == "__main__":
    sys.exit(main())
