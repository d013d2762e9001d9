#!/usr/bin/env python3
"""How long start.sh keeps ComfyUI waiting.

    bench/start.py [--image IMAGE] [--runs 10] [--pairs 5] [--limit 0.2]

Gated: from start.sh's entry to the exec of ComfyUI, with an nvidia-smi that takes 50 ms, median of the runs.
Printed beside it: whole boots through start.sh against bare `python main.py` with the same arguments, in
pairs, one after the other in one container, so that what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
INSIDE = Path(__file__).with_name("start_in_pod.py")
SMI = ROOT / "tests" / "fakes" / "nvidia-smi"
SMI_SECONDS = 0.05
IMAGE = "localhost/podkiln:lazy-0.33.0-cuda-13.0"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when start.sh takes longer than the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", default=IMAGE, help="what `./build.py --variant lazy --load` makes")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=0.2, help="seconds")
    options = parser.parse_args(arguments)

    card = ["--volume", f"{SMI}:/usr/bin/nvidia-smi:ro", "--env", f"FAKE_GPU_SECONDS={SMI_SECONDS}"]
    execs = measure(options.image, card, "exec", options.runs)
    median = statistics.median(execs)
    print(
        f"start.sh to the exec of ComfyUI: median {median:.3f} s of {len(execs)} "
        f"({min(execs):.3f} to {max(execs):.3f}), nvidia-smi {SMI_SECONDS:.3f} s of it; "
        f"limit {options.limit:.3f} s, {median / options.limit:.0%} of it"
    )
    pairs = measure(options.image, [], "ready", options.pairs)
    ours, bare = ([pair[which] for pair in pairs] for which in (0, 1))
    more = [one - other for one, other in pairs]
    print(
        f"boot to /system_stats: start.sh {statistics.median(ours):.2f} s, python main.py "
        f"{statistics.median(bare):.2f} s; paired difference median {statistics.median(more):+.3f} s "
        f"({min(more):+.3f} to {max(more):+.3f}) of {len(pairs)} pairs"
    )
    return int(median > options.limit)


def measure(image: str, options: list[str], what: str, count: int) -> Any:
    """Run the inner half in a fresh container; returns what it measured."""
    name = f"podkiln-bench-{uuid.uuid4().hex[:8]}"
    common = [
        "--name",
        name,
        "--rm",
        "--pull=never",
        "--env=MODELS=none",
        f"--volume={INSIDE}:/start_in_pod.py:ro",
    ]
    inside = ["--", "/usr/bin/python3", "/start_in_pod.py", what, str(count)]
    argv = ["docker", "run", *common, *options, "--entrypoint=/usr/bin/tini", image, *inside]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=900)
    except BaseException:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
        raise
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        why = next((line for line in lines if line.startswith("docker: ")), lines[-1])
        sys.exit(f"bench/start.py: {image} could not be measured: {why}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
