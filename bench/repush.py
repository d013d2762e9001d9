#!/usr/bin/env python3
"""What a push of a changed start.sh costs on a machine that has nothing but the lock.

    bench/repush.py [--small] [--limit 20] [--work DIR] [-- OPTION ...]

A variant is built and pushed. Then podkiln's cache is emptied, but for the base and what the lock remembers
of the push; start.sh is changed; and the push is made again. Bytes are counted by a proxy before the
registry, in both directions; the first push shows that it does count.

OPTION: for ./build.py, where a base, a source, or a certificate has to be given. --small: on the runtime of
the tests, with few wheels.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness import MIB, ROOT, Limit
from servers import counting_proxy

from podkiln.util import cache_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = ("base", "runtimes.json")


@dataclass(frozen=True)
class Push:
    """One run of the command."""

    seconds: float
    sent: int
    pulled: dict[str, int]
    report: dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of the second push")
    parser.add_argument("--work", type=Path, help="where builds, registry and cache go; usually TMPDIR")
    parser.add_argument("options", nargs="*", metavar="OPTION")
    asked = parser.parse_args(arguments)
    harness.need("docker", "docker-registry")
    options = harness.SUBSTITUTES if asked.small else asked.options
    with tempfile.TemporaryDirectory(prefix="repush-", dir=asked.work) as scratch:
        first, second = twice(Path(scratch), options)
    size = sum(layer["size"] for layer in first.report["layers"])
    rows = [
        [what, f"{each.seconds:.1f}", f"{each.sent / MIB:.2f}", f"{sum(each.pulled.values()) / MIB:.1f}"]
        for what, each in (("first", first), ("start.sh changed", second))
    ]
    print(harness.table([f"push, of {size / 1e9:.2f} GB", "seconds", "MiB sent", "MiB read"], rows))
    if first.sent < size:
        harness.fail(f"the first push sent {first.sent} of {size} bytes: nothing was counted")
    low = {layer["digest"] for layer in first.report["layers"][:2]}
    others = sum(count for digest, count in second.pulled.items() if digest not in low and count > MIB)
    return harness.conclude(
        [
            Limit("time of the second push", second.seconds, asked.limit, " s"),
            Limit("bytes sent", second.sent, 5_000_000),
            Limit("bytes read of other layers than base and system packages", others, 0),
        ]
    )


def twice(work: Path, options: Sequence[str]) -> tuple[Push, Push]:
    """Push, forget, change start.sh, and push again."""
    counts = counting_proxy.Counts()
    cache = work / "cache" / "podkiln"
    cache.mkdir(parents=True)
    (cache / "base").symlink_to(cache_folder.path() / "base")
    with (
        harness.registries.serve(work / "registry") as registry,
        counting_proxy.serve(registry, counts) as host,
    ):
        first = push(work, 7, host, counts, options)
        for path in cache.iterdir():
            if path.name not in KEPT:
                path.rename(work / f"{path.name}.lost")
        second = push(work, 8, host, counts, options)
    return first, second


def push(
    work: Path, stop_seconds: int, host: str, counts: counting_proxy.Counts, options: Sequence[str]
) -> Push:
    """Run the command, and count."""
    variant, report = work / "pushed.yaml", work / "report.json"
    variant.write_text(f"extends: lazy\ntitle: Pushed again\nruntime: {{stop_seconds: {stop_seconds}}}\n")
    argv: list[str | Path] = ["--variant", variant, "--out", work / "dist", "--report", report]
    argv += ["--ca-bundle", harness.SYSTEM_CA, "--allow-substituted", "--push", "--registry", f"{host}/bench"]
    counts.clear()
    begun = time.monotonic()
    harness.run([ROOT / "build.py", *argv, *options], {"XDG_CACHE_HOME": str(work / "cache")})
    took = time.monotonic() - begun
    return Push(took, sum(counts.pushed().values()), counts.pulled(), json.loads(report.read_text()))


if __name__ == "__main__":
    sys.exit(main())
