#!/usr/bin/env python3
"""What the door before ComfyUI costs: a request, an upload, a download, a websocket.

    bench/door.py [--image IMAGE] [--rounds 5] [--limit 1.0] [--ratio 0.5]

Gated: how much longer a request takes through the door, in ms, median of pairs; and the speed of 256 MiB up,
256 MiB down and 50 MiB of websocket messages against that past the door, in pairs in one pod. What stands
behind the door keeps nothing and computes nothing, so that the door is what is seen. The limit of a ratio is
low, because client, door and server share the machine's cores here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import lab
from containers import Container

INSIDE = Path(__file__).resolve().with_name("door_in_pod.py")
IMAGE = "localhost/podkiln:lazy-0.33.0-cuda-13.0"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", default=IMAGE, help="what `./build.py --variant lazy --load` makes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=1.0, help="ms that a request may take longer")
    parser.add_argument("--ratio", type=float, default=0.5, help="of the speed past the door, at least")
    options = parser.parse_args(arguments)
    mounts = {str(INSIDE): "/opt/ComfyUI/main.py:ro"}
    with Container(options.image, env={"MODELS": "none"}, mounts=mounts) as pod:
        pod.wait_log("podkiln: ready in")
        told = pod.exec("/opt/venv/bin/python", "/opt/ComfyUI/main.py", str(options.rounds)).stdout
    pairs: dict[str, list[tuple[float, float]]] = json.loads(told)
    more = statistics.median(door - past for door, past in pairs.pop("request")) * 1000
    limits = [lab.Limit("a request through the door takes longer by", more, options.limit, " ms")]
    for what, found in pairs.items():
        ratio = statistics.median(door / past for door, past in found)
        limits.append(lab.Limit(f"{what}: time through the door, of that past it", ratio, 1 / options.ratio))
    return lab.conclude(limits)


if __name__ == "__main__":
    sys.exit(main())
