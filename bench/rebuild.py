#!/usr/bin/env python3
"""What a build costs when little or nothing changed, beside plain BuildKit with the same cache.

    bench/rebuild.py [--rounds 3] [--no-keep] [--work DIR] [-- OPTION ...]

Each round builds lazy again with nothing changed, with another `stop_seconds`, which changes start.sh alone,
and then, with one more line in the start.sh that was rendered, runs plain `docker buildx bake` to an OCI
folder. Medians count. The first build fills the caches and is shown by itself.

OPTION: for ./build.py, where a base, a source, or a certificate has to be given.
--no-keep: also build once more so, and measure the disk that it takes beyond the engine's own store.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness import MIB, ROOT, Limit

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN = "type=oci,tar=false"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-keep", action="store_true")
    parser.add_argument("--work", type=Path, help="where builds and their cache go; usually TMPDIR")
    parser.add_argument("options", nargs="*", metavar="OPTION")
    asked = parser.parse_args(arguments)
    harness.need("docker")
    with tempfile.TemporaryDirectory(prefix="rebuild-", dir=asked.work) as scratch:
        builds = Builds(Path(scratch), asked.options)
        limits = measure(builds, asked.rounds)
        if asked.no_keep:
            limits.append(peak(builds))
    return harness.conclude(limits)


class Builds:
    """Builds of one variant into one folder."""

    def __init__(self, work: Path, options: Sequence[str]) -> None:
        self.work, self.options = work, options
        self.variant, self.out, self.cache = work / "rebuilt.yaml", work / "dist", work / "cache"
        self.stop_seconds(1)

    def stop_seconds(self, seconds: int) -> None:
        """Change start.sh, and nothing else of the image's files."""
        text = f"extends: lazy\ndescription: rebuilt again and again\nruntime: {{stop_seconds: {seconds}}}\n"
        self.variant.write_text(text)

    def podkiln(self, *more: str) -> tuple[float, dict[str, Any]]:
        """Run ./build.py; return its seconds and its report."""
        report = self.work / "report.json"
        argv: list[str | Path] = ["--variant", self.variant, "--out", self.out, "--report", report]
        begun = time.monotonic()
        harness.run(
            [ROOT / "build.py", *argv, "--allow-substituted", *self.options, *more],
            {"XDG_CACHE_HOME": str(self.cache)},
        )
        return time.monotonic() - begun, json.loads(report.read_text())

    def plain(self, number: int, by_hand: str) -> float:
        """Change a line of the rendered start.sh and run the command that the report tells."""
        start = self.out / "rebuilt" / "start.sh"
        start.write_text(start.read_text() + f"# {number}\n")
        place = self.work / "plain"
        shutil.rmtree(place, ignore_errors=True)
        begun = time.monotonic()
        harness.run(["sh", "-c", f"{by_hand} --set rebuilt.output={PLAIN},dest={place}"])
        return time.monotonic() - begun


def measure(builds: Builds, rounds: int) -> list[Limit]:
    """Build again and again; print the table."""
    first, report = builds.podkiln()
    harness.tell(f"the first build took {first:.0f} s")
    took: dict[str, list[float]] = {"nothing": [], "start.sh": [], "start.sh, plain BuildKit": []}
    for number in range(rounds):
        took["nothing"].append(builds.podkiln()[0])
        builds.stop_seconds(10 + number)
        took["start.sh"].append(builds.podkiln()[0])
        took["start.sh, plain BuildKit"].append(builds.plain(number, report["command"]))
        told = ", ".join(f"{what} {each[-1]:.1f} s" for what, each in took.items())
        harness.tell(f"round {number + 1} of {rounds}: {told}")
    size = sum(layer["size"] for layer in report["layers"])
    rows = [["first build", f"{first:.1f}"]]
    rows += [[what, f"{statistics.median(each):.1f}"] for what, each in took.items()]
    print(harness.table([f"changed, of {size / 1e9:.2f} GB", "seconds"], rows))
    nothing, start, plain = (statistics.median(each) for each in took.values())
    return [
        Limit("nothing changed", nothing, 5, " s"),
        Limit("start.sh changed", start, 8, " s"),
        Limit("start.sh changed, of plain BuildKit's time", start / plain, 0.25),
    ]


def peak(builds: Builds) -> Limit:
    """Build with --no-keep from empty caches of podkiln's own, and watch the disk."""
    shutil.rmtree(builds.out)
    for name in ("exports", "layers"):
        shutil.rmtree(builds.cache / "podkiln" / name)
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.5):
            most = max(most, held(builds.work))

    before, watcher = held(builds.work), threading.Thread(target=watch)
    watcher.start()
    try:
        _, report = builds.podkiln("--no-keep")
    finally:
        done.set()
        watcher.join()
    size = sum(layer["size"] for layer in report["layers"])
    harness.tell(f"--no-keep took {(most - before) / MIB:.0f} MiB for an image of {size / MIB:.0f} MiB")
    return Limit("disk that --no-keep takes, of the image's size", (most - before) / size, 1.3)


def held(folder: Path) -> int:
    """Return the bytes of a folder's files, those with several names once."""
    done = subprocess.run(["du", "-s", "-B1", folder], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0])


if __name__ == "__main__":
    sys.exit(main())
