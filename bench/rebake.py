#!/usr/bin/env python3
"""What a changed start.sh costs when the weights are baked already: not one byte of them moves again.

    bench/rebake.py [--files 2] [--gib 0.25] [--limit 3] [--work DIR]

A baked image is pushed; then its variant is given another `stop_seconds`, which changes start.sh and no other
file, and is pushed again. Bytes are counted at the source, which sends them, and by a proxy before the
registry; the first push shows that both do count. Time is that of the command less its step `build`, which
makes the runtime.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import files
import harness
from harness import GIB, MIB, Limit
from servers import counting_proxy, file_server

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANGE = "runtime: {stop_seconds: 7}\n"


@dataclass(frozen=True)
class Push:
    """One run of the command: seconds beyond the runtime's build, and bytes."""

    seconds: float
    build: float
    fetched: int
    weights: int
    others: int
    report: dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--gib", type=float, default=0.25, help="of each file")
    parser.add_argument("--limit", type=float, default=3.0, help="seconds beyond the build of the runtime")
    parser.add_argument("--work", type=Path, help="where files, registry and builds go; usually TMPDIR")
    options = parser.parse_args(arguments)
    harness.need("docker", "docker-registry")
    with tempfile.TemporaryDirectory(prefix="rebake-", dir=options.work) as scratch:
        work = Path(scratch)
        made = files.make(work / "files", options.files, int(options.gib * GIB))
        first, second = twice(work, made)
    show(first, second)
    total = sum(file.size for file in made)
    if first.fetched < total or first.weights < total:
        harness.fail(
            f"the first push moved {first.fetched} and {first.weights} bytes of {total}: nothing was counted"
        )
    return harness.conclude(
        [
            Limit("weight bytes fetched again", second.fetched, 0),
            Limit("weight bytes uploaded again", second.weights, 0),
            Limit("time beyond the build of the runtime", second.seconds, options.limit, " s"),
        ]
    )


def twice(work: Path, made: Sequence[files.File]) -> tuple[Push, Push]:
    """Push, change start.sh, and push again."""
    counts = counting_proxy.Counts()
    variant = files.describe(made, work / "variants" / "bench.yaml")
    out = work / "dist"
    with (
        file_server.serve(work / "files") as serving,
        harness.registries.serve(work / "registry") as registry,
        counting_proxy.serve(registry, counts) as host,
    ):
        first = push(variant, out, host, serving, counts)
        before = contents(out / "bench")
        variant.write_text(variant.read_text() + CHANGE)
        second = push(variant, out, host, serving, counts)
        after = contents(out / "bench")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    if changed != {"start.sh"}:
        harness.fail(f"start.sh alone was to be changed, but {', '.join(sorted(changed)) or 'nothing'} was")
    return first, second


def push(
    variant: Path, out: Path, host: str, serving: file_server.Source, counts: counting_proxy.Counts
) -> Push:
    """Run the command, and count."""
    counts.clear()
    before = sum(serving.sent().values())
    begun = time.monotonic()
    report = harness.podkiln(
        variant, out, "--push", f"--registry={host}/bench", env={"HF_ENDPOINT": serving.url}
    )
    took = time.monotonic() - begun
    layers = weight_layers(report)
    uploaded = counts.pushed()
    weights = sum(count for digest, count in uploaded.items() if digest in layers or not digest)
    return Push(
        seconds=took - report["seconds"]["build"],
        build=report["seconds"]["build"],
        fetched=sum(serving.sent().values()) - before,
        weights=weights,
        others=sum(uploaded.values()) - weights,
        report=report,
    )


def weight_layers(report: dict[str, Any]) -> set[str]:
    """Return the digests of an image's weight layers."""
    return {row["digest"] for row in report["layers"] if row["what"].startswith("podkiln bake ")}


def contents(context: Path) -> dict[str, str]:
    """Return the hash of each file of a build context."""
    kept = ("image", "uppermost", "report.json")  # what builds add to it
    found = (path for path in context.rglob("*") if path.is_file())
    names = {path: str(path.relative_to(context)) for path in found}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path, name in names.items()
        if not name.startswith(kept)
    }


def show(first: Push, second: Push) -> None:
    """Print the table."""
    rows = [
        [
            what,
            f"{each.fetched / MIB:.1f}",
            f"{each.weights / MIB:.1f}",
            f"{each.others / MIB:.1f}",
            f"{each.build:.1f}",
            f"{each.seconds:.1f}",
            " ".join(
                f"{step} {took:.1f}" for step, took in each.report["seconds"].items() if step != "build"
            ),
        ]
        for what, each in (("first push", first), ("start.sh changed", second))
    ]
    head = ["", "fetched MiB", "weights sent MiB", "others sent MiB", "build s", "beyond s", "of that"]
    print(harness.table(head, rows))


if __name__ == "__main__":
    sys.exit(main())
