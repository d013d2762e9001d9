#!/usr/bin/env python3
"""What the model's server costs beside the pipeline that it serves: at its start, and for each request.

    bench/model_server.py [--image IMAGE | --python PYTHON] [--kind sdxl] [--rounds 5] [--requests 200]
                          [--limit 1.3] [--request-limit 15]

A tiny random model is made first. Then, in turns, each time as a fresh process:

    bare      python -c: from_pretrained of the same folder, and one generation
    served    the server with MODEL_ID, from its start to the answer of its first request

Gated: the median of `served` by that of `bare` (--limit), and the median over all requests of what one takes
beyond its own phases, which the answer tells, in milliseconds (--request-limit). The memory of the server
after the first and the last requests is printed.

--python takes an environment with torch and what variants/python/diffusers.in names instead of a container,
and serves from this checkout. Needs: the packages of the tests, and without --python docker and an image of
`serve: diffusers` (`./build.py --variant server --load`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from containers import Container
from registries import free_port

from podkiln.config import families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGE = "localhost/podkiln:server-0.42.1-cuda-13.0"
VENV = "/opt/venv/bin/python"
TOKEN = "a-token-of-the-benchmark"  # noqa: S105 - of a server that ends with it
PATIENCE = 600.0  # seconds
SIZE = 64  # pixels
_WARM = 20  # requests before those that are measured
_LOADING = 503
BARE = """
import sys, torch
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained(sys.argv[1], use_safetensors=True, local_files_only=True)
seed = torch.Generator("cpu").manual_seed(1)
made = pipeline("a cat", num_inference_steps=2, height={size}, width={size}, generator=seed)
made.images[0].save("/dev/null", "PNG")
"""


@dataclass(frozen=True)
class Way:
    """How things are run: in containers of an image, or by a Python of this machine."""

    run: Callable[..., object]
    """Runs Python with these words to its end; the folder of the model is /models or as it is."""
    serve: Callable[[], contextlib.AbstractContextManager[tuple[str, Callable[[], int]]]]
    """Starts the server; yields its address, and what tells its memory in KiB."""
    models: str


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", default=IMAGE, help="an image with `serve: diffusers`")
    parser.add_argument("--python", type=Path, metavar="PYTHON", help="one with torch and diffusers")
    parser.add_argument(
        "--kind", default="sdxl", help="of tests/tiny_models/make.py: one that makes pictures"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--limit", type=float, default=1.3, help="first answer by the bare pipeline's")
    parser.add_argument("--request-limit", type=float, default=15.0, help="milliseconds beyond the phases")
    options = parser.parse_args(arguments)
    if not options.python:
        harness.need("docker")
    times: dict[str, list[float]] = {"bare": [], "served": []}
    beyond: list[float] = []
    memory: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        way = by_python(options.python, place, options.kind) if options.python else in_image(options, place)
        harness.tell(f"a tiny {options.kind}")
        way.run("tests/tiny_models/make.py", options.kind, f"{way.models}/{options.kind}")
        for number in range(options.rounds + 1):  # the first one warms the page cache
            harness.tell(f"round {number} of {options.rounds}")
            begun = time.monotonic()
            way.run("-c", BARE.format(size=SIZE), f"{way.models}/{options.kind}")
            bare = time.monotonic() - begun
            begun = time.monotonic()
            with way.serve() as (address, resident):
                first_answer(address)
                served = time.monotonic() - begun
                if number == options.rounds:
                    for each in range(_WARM):
                        generate(address, each)
                    memory.append(resident())
                    beyond = [1000 * overhead(address, each) for each in range(options.requests)]
                    memory.append(resident())
            if number or not options.rounds:
                times["bare"].append(bare)
                times["served"].append(served)
    rows = [
        [name, *(f"{figure:.2f}" for figure in (statistics.median(found), min(found), max(found)))]
        for name, found in times.items()
    ]
    print(f"{options.python or options.image}, a tiny {options.kind}, {options.rounds} rounds, in seconds")
    print(harness.table(["to the first picture", "median", "(from", "to)"], rows))
    print(
        f"{options.requests} requests: {statistics.median(beyond):.1f} ms each beyond their phases, "
        f"{max(beyond):.1f} at most; memory of the server {memory[0] // 1024} MiB before, "
        f"{memory[1] // 1024} MiB after"
    )
    ratio = statistics.median(times["served"]) / statistics.median(times["bare"])
    return harness.conclude(
        [
            harness.Limit("first answer by the bare pipeline's first picture", ratio, options.limit),
            harness.Limit(
                "a request beyond its phases", statistics.median(beyond), options.request_limit, " ms"
            ),
        ]
    )


def first_answer(address: str) -> None:
    """Ask until the first picture comes."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            generate(address, 1)
        except urllib.error.HTTPError as refused:
            with refused:
                if refused.code != _LOADING:
                    harness.fail(f"the server answered {refused.code}: {refused.read().decode()[:300]}")
        except OSError:
            pass
        else:
            return
        if time.monotonic() > end:
            harness.fail(f"the server has not answered within {PATIENCE:.0f} s")
        time.sleep(0.05)


def generate(address: str, seed: int) -> dict[str, Any]:
    """Ask for one picture; returns the answer."""
    asked = {"prompt": "a cat", "num_inference_steps": 2, "height": SIZE, "width": SIZE, "seed": seed}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(f"{address}/generate", json.dumps(asked).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return dict(json.load(answer))


def overhead(address: str, seed: int) -> float:
    """Return the seconds of a request beyond those of its phases."""
    begun = time.monotonic()
    answer = generate(address, seed)
    return time.monotonic() - begun - sum(map(float, answer["output"]["timings"].values()))


def in_image(options: argparse.Namespace, folder: Path) -> Way:
    """Return the way through containers of an image."""
    mounts = {str(folder): "/models", str(harness.ROOT / "tests"): "/tests:ro"}

    def run(*words: str) -> None:
        volumes = [f"--volume={here}:{there}" for here, there in mounts.items()]
        named = [f"/{word}" if word.startswith("tests/") else word for word in words]
        harness.run(
            [
                "docker",
                "run",
                "--rm",
                "--network=none",
                *volumes,
                f"--entrypoint={VENV}",
                options.image,
                *named,
            ]
        )

    @contextlib.contextmanager
    def serve() -> Iterator[tuple[str, Callable[[], int]]]:
        env = {"MODEL_ID": f"/models/{options.kind}", "API_TOKEN": TOKEN}
        with Container(options.image, env=env, mounts=mounts) as pod:

            def resident() -> int:
                number = pod.exec("sh", "-c", "cut -d ' ' -f 1 /run/podkiln/processes/server").stdout.strip()
                return kib(pod.read(f"/proc/{number}/status"))

            yield f"http://{pod.address}:8000", resident

    return Way(run, serve, "/models")


def by_python(python: Path, folder: Path, kind: str) -> Way:
    """Return the way through a Python of this machine, with podkiln laid out as it is in an image."""
    root = folder / "root"
    root.mkdir()
    for name in ("comfy", "pod", "server", "worker"):
        shutil.copytree(harness.ROOT / "scripts" / name, root / name)
    shutil.copy(harness.ROOT / "scripts" / "__main__.py", root)
    (root / "detection.json").write_text(json.dumps(families.to_json()))

    def run(*words: str) -> None:
        named = [str(harness.ROOT / word) if word.startswith("tests/") else word for word in words]
        harness.run([python, *named])

    @contextlib.contextmanager
    def serve() -> Iterator[tuple[str, Callable[[], int]]]:
        port = free_port()
        environ = {
            **os.environ,
            "PODKILN_ROOT": str(root),
            "PODKILN_RUN": str(folder / "run"),
            "WORKSPACE": str(folder / "workspace"),
            "MODEL_ID": str(folder / kind),
            "API_TOKEN": TOKEN,
            "SERVE_HOST": "127.0.0.1",
            "PORT": str(port),
        }
        process = subprocess.Popen([python, "-I", root, "model"], env=environ, stdout=sys.stderr)
        try:
            yield (
                f"http://127.0.0.1:{port}",
                lambda: kib(Path(f"/proc/{process.pid}/status").read_text()),
            )
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()

    return Way(run, serve, str(folder))


def kib(status: str) -> int:
    """Return VmRSS of /proc/PID/status (proc_pid_status(5)), in KiB."""
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


if __name__ == "__main__":
    sys.exit(main())
