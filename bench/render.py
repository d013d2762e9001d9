#!/usr/bin/env python3
"""How long podkiln keeps a person waiting: rendering every variant, and showing its help.

    bench/render.py [--runs 10] [--render-limit 1.0] [--help-limit 0.25]

Both through ./build.py in a process of its own, as people call it, once .venv is there. Beside each: how that
compares with the limit, and with starting Python itself, below which no command can come.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = str(ROOT / "build.py")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--render-limit", type=float, default=1.0, help="seconds")
    parser.add_argument("--help-limit", type=float, default=0.25, help="seconds")
    options = parser.parse_args(arguments)

    python = median([sys.executable, "-c", "pass"], options.runs)
    shown = median([BUILD, "--help"], options.runs)
    with tempfile.TemporaryDirectory() as out:
        rendered = median([BUILD, "render", "--variant", "all", "--out", out], options.runs)
    rows = [
        ("./build.py --help", shown, options.help_limit),
        ("./build.py render --variant all", rendered, options.render_limit),
    ]
    print(f"{'python -c pass':32} median {python:.3f} s of {options.runs}")
    for what, took, limit in rows:
        print(
            f"{what:32} median {took:.3f} s of {options.runs}; "
            f"limit {limit:.2f} s, {took / limit:.0%} of it; {took / python:.1f} times Python's own start"
        )
    return int(any(took > limit for _, took, limit in rows))


def median(argv: list[str], runs: int) -> float:
    """Time a command; the first run, which warms the page cache, does not count."""
    times = []
    for _ in range(runs + 1):
        begun = time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        times.append(time.monotonic() - begun)
        if done.returncode:
            sys.exit(f"bench/render.py: {' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return statistics.median(times[1:])


if __name__ == "__main__":
    sys.exit(main())
