#!/usr/bin/env python3
"""What a build costs when little or nothing changed, beside plain BuildKit with the same cache.

    bench/rebuild.py [--rounds 3] [--no-keep] [--against DIR [--here OPTION ...]] [--work DIR] [-- OPTION ...]

Each round builds lazy again with nothing changed, with another `stop_seconds`, which changes start.sh alone,
and then, with one more line in the start.sh that was rendered, runs plain `docker buildx bake` to an OCI
folder. After them it is built with other versions of one small wheel of the last Python layer, and the
seconds of the steps that install something are taken off. Medians count. The first build fills the caches
and is shown by itself.

OPTION: for ./build.py, where a base, a source, or a certificate has to be given.
--no-keep: also build once more so, and measure the disk that it takes beyond the engine's own store.
--against: a checkout of an older commit; both build lazy with every step anew and no cache of podkiln's own.
--here: an option that the older commit does not know: --here=--source=nodes=none leaves out what it has not.
"""

from __future__ import annotations

import argparse
import json
import re
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
LAST_LAYER = "comfyui.txt"
SMALL_WHEEL = "comfyui-workflow-templates-json"  # 3.6 MB
SMALL_WHEEL_PIN = re.compile(rf"^{SMALL_WHEEL}==.*\n.*\n", re.MULTILINE)
VERSIONS = {
    "0.1.92": "680dd90525faeeb41dbcd6724c6006513d607b7c3a418ab173fa850c83dc91b1",
    "0.1.93": "a131f57bd643fef1ebb67b197a174793923045af66f176d7d23cc8619f112e2f",
    "0.1.94": "be5928fa87d49f722982cccdb5ec6d8a433e784dfffeef2f8bc297a4bc585048",
    "0.1.95": "9068931045d901e7c18af960d9dab55982ab872c036cc856c2f0745c21b71e01",
    "0.1.96": "1e063d88c03160fe56121a50b3e34cd9b2bc90ee855bee30f3a062f7950b47b5",
}
# A step of BuildKit's plain progress that runs something in the image, and the seconds that a step took.
INSTALLS = re.compile(r"^#(\d+) \[[^\]]+\] RUN ", re.MULTILINE)
TOOK = re.compile(r"^#(\d+) DONE ([\d.]+)s$", re.MULTILINE)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-keep", action="store_true")
    parser.add_argument("--against", type=Path, metavar="DIR")
    parser.add_argument("--here", action="append", default=[], metavar="OPTION")
    parser.add_argument("--work", type=Path, help="where builds and their cache go; usually TMPDIR")
    parser.add_argument("options", nargs="*", metavar="OPTION")
    asked = parser.parse_args(arguments)
    harness.need("docker")
    with tempfile.TemporaryDirectory(prefix="rebuild-", dir=asked.work) as scratch:
        builds = Builds(Path(scratch), asked.options, asked.here)
        limits = measure(builds, asked.rounds)
        if asked.no_keep:
            limits.append(peak(builds))
        if asked.against:
            limits.append(first(builds, asked.against.resolve()))
    return harness.conclude(limits)


class Builds:
    """Builds of one variant into one folder."""

    def __init__(self, work: Path, shared: Sequence[str], here: Sequence[str]) -> None:
        self.work, self.shared, self.options = work, shared, [*shared, *here]
        self.variant, self.out, self.cache = work / "rebuilt.yaml", work / "dist", work / "cache"
        self.stop_seconds(1)

    def stop_seconds(self, seconds: int) -> None:
        """Change start.sh, and nothing else of the image's files."""
        text = f"extends: lazy\ndescription: rebuilt again and again\nruntime: {{stop_seconds: {seconds}}}\n"
        self.variant.write_text(text)

    def podkiln(self, *more: str | Path) -> tuple[float, dict[str, Any]]:
        """Run ./build.py; return its seconds and its report."""
        report = self.work / "report.json"
        argv: list[str | Path] = ["--variant", self.variant, "--out", self.out, "--report", report]
        begun = time.monotonic()
        self.said = harness.finish(
            [ROOT / "build.py", *argv, "--allow-substituted", *self.options, *more],
            {"XDG_CACHE_HOME": str(self.cache)},
        ).stderr
        return time.monotonic() - begun, json.loads(report.read_text())

    def wheel(self, version: str) -> float:
        """Build with another small wheel; return the seconds beyond the steps that BuildKit runs."""
        requirements = self.work / "requirements"
        shutil.rmtree(requirements, ignore_errors=True)
        shutil.copytree(self.out / "rebuilt" / "requirements", requirements)
        layer = requirements / LAST_LAYER
        pin = f"{SMALL_WHEEL}=={version} \\\n    --hash=sha256:{VERSIONS[version]}\n"
        text, found = SMALL_WHEEL_PIN.subn(lambda _: pin, layer.read_text())
        if found != 1:
            harness.fail(f"{layer} does not pin {SMALL_WHEEL}")
        layer.write_text(text)
        whole, _ = self.podkiln("--source", f"requirements={requirements}")
        steps = set(INSTALLS.findall(self.said))
        installing = sum(float(took) for step, took in TOOK.findall(self.said) if step in steps)
        if not installing:
            harness.fail("BuildKit showed no step that was run")
        return whole - installing

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
    filled, report = builds.podkiln()
    harness.tell(f"the first build took {filled:.0f} s")
    legs = ("nothing", "start.sh", "start.sh, plain BuildKit", "a small wheel, beyond the steps run")
    took: dict[str, list[float]] = {leg: [] for leg in legs}
    for number in range(rounds):
        took[legs[0]].append(builds.podkiln()[0])
        builds.stop_seconds(10 + number)
        took[legs[1]].append(builds.podkiln()[0])
        took[legs[2]].append(builds.plain(number, report["command"]))
        told = ", ".join(f"{what} {each[-1]:.1f} s" for what, each in took.items() if each)
        harness.tell(f"round {number + 1} of {rounds}: {told}")
    shutil.rmtree(builds.work / "plain")  # the disk may not hold it beside what follows
    for version in list(VERSIONS)[:rounds]:
        took[legs[3]].append(builds.wheel(version))
        harness.tell(f"{legs[3]}: {took[legs[3]][-1]:.1f} s")
    size = sum(layer["size"] for layer in report["layers"])
    rows = [["first build", f"{filled:.1f}"]]
    rows += [[what, f"{statistics.median(each):.1f}"] for what, each in took.items()]
    print(harness.table([f"changed, of {size / 1e9:.2f} GB", "seconds"], rows))
    nothing, start, plain, wheel = (statistics.median(each) for each in took.values())
    return [
        Limit("nothing changed", nothing, 5, " s"),
        Limit("start.sh changed", start, 8, " s"),
        Limit("start.sh changed, of plain BuildKit's time", start / plain, 0.25),
        Limit("a small wheel changed, beyond the install steps", wheel, 25, " s"),
    ]


def first(builds: Builds, older: Path) -> Limit:
    """Build with every step anew, here and with an older commit, each with an empty cache of its own."""
    seconds = {}
    for root, options in ((older, builds.shared), (ROOT, builds.options)):
        harness.run([root / "build.py", "--help"])  # its .venv is made first
        place = builds.work / "first"
        argv: list[str | Path] = ["--variant", "lazy", "--no-cache", "--out", place / "dist"]
        begun = time.monotonic()
        harness.run([root / "build.py", *argv, *options], {"XDG_CACHE_HOME": str(place / "cache")})
        seconds[root] = time.monotonic() - begun
        shutil.rmtree(place)
    harness.tell(f"every step anew: {seconds[older]:.0f} s at {older.name}, {seconds[ROOT]:.0f} s here")
    return Limit("a first build, of the older commit's time", seconds[ROOT] / seconds[older], 0.7)


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
