#!/usr/bin/env python3
"""What the door before ComfyUI costs: a request, an upload, a download, a websocket.

    bench/door.py [--image IMAGE] [--rounds 5] [--limit 1.0] [--line 10]

Gated: how much longer a request takes through the door, in ms, median of pairs; and the time of 256 MiB up,
256 MiB down and 50 MiB of websocket messages through it: at most what a line of 10 Gbit/s takes, so that the
line is what limits a pod, never the door. What stands behind the door keeps nothing and computes nothing.
Printed beside it: the same past the door, in pairs in one pod. No line is between them, and client, door and
server share the machine's cores, so that on two cores one process more takes about twice the time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import harness
from containers import Container
from door_in_pod import BIG, MESSAGE, MESSAGES

INSIDE = Path(__file__).resolve().with_name("door_in_pod.py")
SIZES = {"upload": BIG, "download": BIG, "websocket": MESSAGES * len(MESSAGE)}  # bytes
IMAGE = "localhost/podkiln:lazy-0.33.0-cuda-13.0"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", default=IMAGE, help="what `./build.py --variant lazy --load` makes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=1.0, help="ms that a request may take longer")
    parser.add_argument("--line", type=float, default=10.0, help="Gbit/s of the fastest line")
    options = parser.parse_args(arguments)
    mounts = {str(INSIDE): "/opt/ComfyUI/main.py:ro"}
    with Container(options.image, env={"MODELS": "none"}, mounts=mounts) as pod:
        pod.wait_log("podkiln: ready in")
        told = pod.exec("/opt/venv/bin/python", "/opt/ComfyUI/main.py", str(options.rounds)).stdout
    pairs: dict[str, list[tuple[float, float]]] = json.loads(told)
    more = statistics.median(door - past for door, past in pairs.pop("request")) * 1000
    limits = [harness.Limit("a request through the door takes longer by", more, options.limit, " ms")]
    for what, found in pairs.items():
        door, past = (statistics.median(pair[which] for pair in found) for which in (0, 1))
        size = SIZES[what]
        line = size * 8 / (options.line * 1e9) * 1000
        print(f"{what}: {size / door / 1e6:.0f} MB/s through the door, {size / past / 1e6:.0f} MB/s past it")
        limits.append(harness.Limit(f"{what} of {size >> 20} MiB through the door", door * 1000, line, " ms"))
    return harness.conclude(limits)


if __name__ == "__main__":
    sys.exit(main())
