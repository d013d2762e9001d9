"""When what happened at boot: $PODKILN_RUN/boot.json, and one line in the log once ComfyUI serves.

Times are seconds of CLOCK_BOOTTIME, which start.sh reads from /proc/uptime.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from pod import health

PAUSE = 0.25
# A first start with many custom nodes takes minutes; after this long somebody is looking anyway.
PATIENCE = 1800.0


def now() -> float:
    """Seconds since the machine started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wait_until_ready(patience: float = PATIENCE) -> float | None:
    """Wait until ComfyUI serves. Returns when it did; None when it never did."""
    end = now() + patience
    while now() < end:
        if health.problem(timeout=2.0) is None:
            return now()
        time.sleep(PAUSE)
    return None


def decision(run: Path) -> dict[str, float]:
    """Return how many seconds each part of the decision took, as `decide` noted them."""
    try:
        noted = json.loads((run / "decision.json").read_text(encoding="utf-8")).get("seconds", {})
    except (OSError, ValueError):
        return {}
    return {str(name): float(value) for name, value in noted.items()}


def write(run: Path, timeline: dict[str, object]) -> None:
    """Write boot.json aside, then rename it: readers see all of it or none."""
    aside = run / "boot.json.part"
    aside.write_text(json.dumps(timeline, indent=1) + "\n", encoding="utf-8")
    aside.replace(run / "boot.json")


def main(arguments: list[str]) -> int:
    """Note the boot. Arguments: when start.sh began, and when it spawned ComfyUI."""
    started, spawned = (float(argument) for argument in arguments)
    run = Path(os.environ.get("PODKILN_RUN", "/run/podkiln"))
    parts = decision(run)
    timeline: dict[str, object] = {
        "schema": 1,
        "clock": "boottime",
        "started": started,
        "spawned": spawned,
        "seconds": {**parts, "start": round(spawned - started, 3)},
    }
    write(run, timeline)
    ready = wait_until_ready()
    if ready is None:
        print(f"podkiln: ComfyUI has not answered for {PATIENCE:.0f} s.", file=sys.stderr)
        return 1
    took = {**parts, "start": round(spawned - started, 3), "comfyui": round(ready - spawned, 3)}
    write(run, {**timeline, "ready": ready, "seconds": {**took, "ready": round(ready - started, 3)}})
    shown = ", ".join(f"{name} {value:.2f}" for name, value in took.items())
    print(f"podkiln: ready in {ready - started:.1f} s ({shown})", file=sys.stderr)
    return 0
