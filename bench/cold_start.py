#!/usr/bin/env python3
"""How long a pod takes from its container's start to /system_stats and to the first prompt's answer.

    bench/cold_start.py [--image IMAGE ...] [--comfyui DIR] [--rounds 5] [--limit 0.3] [--late-limit 0.5]

Each image is started in four ways, in turns, each time as a fresh container:

    bare        `python main.py` as the entry point, with the arguments that podkiln chose, but for folders
    podkiln     start.sh, with nothing switched on
    fetching    start.sh, with a model on its way from a slow hub
    everything  start.sh, with sshd, Jupyter, the login and /ping beside that

Printed are medians. Gated: start.sh's own share with everything on, from its start to the start of ComfyUI
(--limit, in seconds), and how much later /system_stats answers than with nothing switched on: half of
--late-limit with a model on its way, all of it with everything. --comfyui puts another ComfyUI in the place
of the image's.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime as dt
import json
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from containers import Container, gateway
from fakes.pod import huggingface, row
from servers.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = "localhost/podkiln:lazy-0.33.0-cuda-13.0"
LOGIN = ("bench", "only-for-this-minute")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
MODEL_MIB, RATE = 64, 32 * 1024  # at 16 connections it is on its way for two minutes
PROMPT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
}
HUB = "HF_ENDPOINT"
PATIENCE = 300.0
SHORT = 0.02  # seconds between two looks


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", action="append", help="may be repeated; what `./build.py --load` makes")
    parser.add_argument("--comfyui", type=Path, metavar="DIR", help="a ComfyUI tree to start instead")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=0.3, help="seconds")
    parser.add_argument("--late-limit", type=float, default=0.5, help="seconds")
    options = parser.parse_args(arguments)
    harness.need("docker")
    tree = {str(options.comfyui.resolve()): "/opt/ComfyUI"} if options.comfyui else {}

    limits = []
    for image in options.image or [IMAGE]:
        times = measure(image, tree, options.rounds)
        print(f"{image}, medians of {options.rounds} rounds, in seconds\n{table(times)}\n")
        share = median(times["everything"], "start.sh")
        fetching, late = (
            median(times[way], "/system_stats") - median(times["podkiln"], "/system_stats")
            for way in ("fetching", "everything")
        )
        limits += [
            harness.Limit("start.sh's own share with everything on", share, options.limit, " s"),
            harness.Limit(
                "/system_stats later with a model on its way", fetching, options.late_limit / 2, " s"
            ),
            harness.Limit("/system_stats later with everything on", late, options.late_limit, " s"),
        ]
    return harness.conclude(limits)


def measure(image: str, tree: dict[str, str], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Start an image again and again; returns what each start took, by way. A first round is not counted."""
    times: dict[str, list[dict[str, float]]] = defaultdict(list)
    with slow_hub() as (environ, models):
        mounts = {**tree, str(models): "/opt/podkiln/models.json:ro"}
        bare = ["/usr/bin/tini", "--", "/opt/venv/bin/python", "main.py"]
        for number in range(rounds + 1):
            harness.tell(f"{image}: round {number} of {rounds}")
            took, chosen = start(image, env={"MODELS": "none"}, mounts=tree)
            ways = {
                "bare": start(
                    image, *bare[1:], *without_folders(chosen), mounts=tree, options=["--entrypoint", bare[0]]
                )[0],
                "podkiln": took,
                "fetching": start(image, env={HUB: environ[HUB]}, mounts=mounts)[0],
                "everything": start(image, env=environ, mounts=mounts)[0],
            }
            for way, found in ways.items() if number else ():
                times[way].append(found)
    return times


@contextlib.contextmanager
def slow_hub() -> Iterator[tuple[dict[str, str], Path]]:
    """Serve one model slowly; yields the variables that switch everything on, and the models.json for it."""
    with Hub(bind="0.0.0.0", host=gateway()) as hub, tempfile.TemporaryDirectory() as folder:  # noqa: S104
        hub.rate = RATE
        file = hub.add("bench/model", "model.safetensors", MODEL_MIB << 20)
        entry = {
            "id": "bench",
            "title": "Bench",
            "env": "ENABLE_BENCH",
            "task": "other",
            "default": True,
            "baked": False,
            "gated": False,
            "licence": "MIT",
            "vram_gb": 1,
            "ram_gb": 1,
            "memory_modes": [],
            "requires": [],
            "unmet": [],
            "files": [row(file, huggingface(file, "bench/model"))],
        }
        models = Path(folder) / "models.json"
        models.write_text(json.dumps({"schema": 1, "variant": "bench", "models": [entry]}))
        environ = {
            HUB: hub.url,
            "PUBLIC_KEY": KEY,
            "JUPYTER_PASSWORD": LOGIN[1],
            "WEB_USER": LOGIN[0],
            "WEB_PASSWORD": LOGIN[1],
            "PORT_HEALTH": "9000",
        }
        yield environ, models


def start(image: str, *command: str, **settings: Any) -> tuple[dict[str, float], list[str]]:
    """Start a container until its first prompt is done; returns its times, and ComfyUI's arguments."""
    with Container(image, *command, **settings) as pod:
        begun = started(pod)
        argv = until(pod, lambda: ask(pod, "/system_stats"))["system"]["argv"]
        served = time.time() - begun
        number = until(pod, lambda: ask(pod, "/prompt", {"prompt": PROMPT}))["prompt_id"]
        until(pod, lambda: ask(pod, f"/history/{number}"))
        took = {"/system_stats": served, "first prompt": time.time() - begun}
        if not command:
            pod.wait_log("podkiln: ready in")
            took["start.sh"] = json.loads(pod.read("/run/podkiln/boot.json"))["seconds"]["start"]
        if HUB in settings.get("env", {}):
            told = until(pod, lambda: pod.exec("cat", "/run/podkiln/fetch.json", check=False).stdout)
            state = json.loads(told)["state"]
            if state != "running":
                harness.fail(f"the model was not on its way while ComfyUI started: {state}")
        return took, argv[1:]


def without_folders(arguments: list[str]) -> list[str]:
    """Leave out what start.sh has prepared for: flags whose value is a path, and the door before ComfyUI."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    words = [word for word, following in pairs if "/" not in word and "/" not in following]
    for flag, bare in (("--listen", "0.0.0.0"), ("--port", "8188")):  # noqa: S104 - as a pod without a door
        words[words.index(flag) + 1] = bare
    return words


def started(pod: Container) -> float:
    """Return when the engine started a container."""
    return dt.datetime.fromisoformat(pod.state()["StartedAt"][:26] + "+00:00").timestamp()


def ask(pod: Container, path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask ComfyUI, through the login if there is one; returns its JSON, or None while it is not there."""
    request = urllib.request.Request(
        f"http://{pod.address}:8188{path}", None if body is None else json.dumps(body).encode()
    )
    request.add_header("Authorization", "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def until(pod: Container, look: Any) -> Any:
    """Look until there is something to see; a container that has ended shows nothing any more."""
    end = time.monotonic() + PATIENCE
    alive = time.monotonic() + 1
    while not (found := look()):
        now = time.monotonic()
        if now > alive:  # asking the engine takes longer than a look
            alive = now + 1
            if now > end or not pod.state()["Running"]:
                harness.fail(f"ComfyUI does not answer:\n{pod.logs()[-2000:]}")
        time.sleep(SHORT)
    return found


def median(rows: list[dict[str, float]], what: str) -> float:
    """Return the median of one figure."""
    return statistics.median(each[what] for each in rows)


def table(times: dict[str, list[dict[str, float]]]) -> str:
    """Return the medians of all ways, and the spread of what matters most."""
    head = ["way", "start.sh", "/system_stats", "(from", "to)", "first prompt"]
    lines = []
    for way, rows in times.items():
        served = [each["/system_stats"] for each in rows]
        share = f"{median(rows, 'start.sh'):.3f}" if "start.sh" in rows[0] else ""
        figures = (median(rows, "/system_stats"), min(served), max(served), median(rows, "first prompt"))
        lines.append([way, share, *(f"{figure:.2f}" for figure in figures)])
    return harness.table(head, lines)


if __name__ == "__main__":
    sys.exit(main())
