#!/usr/bin/env python3
"""What all shipped variants cost to push to an empty registry, beside one of them.

    bench/push_all.py [--small] [--work DIR] [-- OPTION ...]

All are built once, which fills the caches. Then lazy is pushed to an empty registry, and all are pushed to
another, without weights. Bytes that the registries store are shown; limits are of time and of bytes.

OPTION: for ./build.py, where a base, a source, or a certificate has to be given. --small: on the runtime of
the tests, with few wheels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import harness
from harness import MIB, ROOT, Limit

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 1.25  # of what one variant takes


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--work", type=Path, help="where all of it goes; usually TMPDIR")
    parser.add_argument("options", nargs="*", metavar="OPTION")
    asked = parser.parse_args(arguments)
    options = [*map(str, harness.SUBSTITUTES), *asked.options] if asked.small else asked.options
    harness.need("docker")
    with tempfile.TemporaryDirectory(prefix="push-all-", dir=asked.work) as scratch:
        work = Path(scratch)
        build(work, "all", options)
        found = {names: push(work, names, options) for names in ("lazy", "all")}
    rows = [[names, f"{took:.1f}", f"{size / MIB:.0f}"] for names, (took, size) in found.items()]
    print(harness.table(["variants", "seconds", "MiB stored"], rows))
    one, every = found["lazy"], found["all"]
    return harness.conclude(
        [
            Limit("time of all variants, of one's", every[0] / one[0], MOST),
            Limit("bytes stored of all variants, of one's", every[1] / one[1], MOST),
        ]
    )


def push(work: Path, names: str, options: Sequence[str]) -> tuple[float, int]:
    """Push to an empty registry; return seconds, and the bytes that it stores then."""
    folder = work / f"registry-{names}"
    with harness.registries.serve(folder) as host:
        begun = time.monotonic()
        build(work, names, ["--push", "--registry", f"{host}/bench", *options])
        took = time.monotonic() - begun
    return took, sum(path.stat().st_size for path in (folder / "data").rglob("data") if path.is_file())


def build(work: Path, names: str, options: Sequence[str]) -> None:
    """Run the command."""
    argv: list[str | Path] = ["--variant", names, "--out", work / "dist", "--no-weights"]
    argv += ["--ca-bundle", harness.SYSTEM_CA, "--allow-substituted", *options]
    harness.run([ROOT / "build.py", *argv], {"XDG_CACHE_HOME": str(work / "cache")})


if __name__ == "__main__":
    sys.exit(main())
