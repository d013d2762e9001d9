#!/usr/bin/env python3
"""How long it takes to bake weights into an image in a registry, and what that takes of the builder.

    bench/bake.py [--files 2] [--gib 2] [--rounds 3] [--only LEG,LEG] [--large 6 | --no-large] [--work DIR]

The same files from one source into one registry, empty each time, by
  podkiln           ./build.py --push, nothing of the weights known to the lock
  add               docker buildx build --push, ADD --checksum
  add-uncompressed  the same with compression=uncompressed
  wget              the same with RUN wget
  copy              a bare copy: curl from the source into one upload a file, all at once, nothing hashed

All on one machine: the source sends from the page cache with sendfile, the registry is Debian's
docker-registry on this disk, and the runtime is built beforehand, the same for all. Before each leg the
machine comes to rest (an engine deletes for a while what a build has left), nothing is left to write to the
disk (sync), the files are in the page cache, and memory for two more copies is at hand (tests/servers/
file_server.py says why). A first round of podkiln and copy, which warms the machine up, does not count; the
order of the contestants changes from round to round, and, when all are run, both podkiln and copy follow a
build by Docker, which leaves the machine busier than they do.

podkiln's command less its step `build`, which makes the runtime, is compared with builds that find theirs
made; its step `bake`, the weights alone, is compared with the bare copy, which begins after such a build too.

Disk: twice the files for podkiln and copy, five times for the others (BuildKit keeps a file, its layer, and
what it pushed). --large N bakes N files, for memory and disk alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import uuid
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING

import files
import harness
from contestants import CONTESTANTS, Ground, Seconds
from harness import GIB, MIB, Limit
from servers import file_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from watch import Taken

PODKILN = "podkiln"
WARM_UP = (PODKILN, "copy")
MEMORY_LIMIT = 200 * MIB
# Beyond what the command takes without weights: manifest, config, what the lock remembers.
DISK_LIMIT = 4 * MIB


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    options = parse(arguments)
    harness.need("docker", "docker-registry", "curl", "cc")
    with tempfile.TemporaryDirectory(prefix="bake-", dir=options.work) as scratch:
        work = Path(scratch)
        with file_server.serve(work / "files") as serving:
            ground = lay(work, serving, options.files, options)
            times, taken = race(ground, options.only, options.rounds, warm_up=options.warm_up)
            limits = [*faster(times), *frugal(taken, f"{options.files} files")]
            if options.large:
                ground = lay(work, serving, options.large, options)
                harness.tell(f"{options.large} files, for memory and disk")
                with registry(work) as host:
                    settle(ground)
                    limits += frugal([ground.bake(host, new_word())[1]], f"{options.large} files")
    show(times, options)
    return harness.conclude(limits)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--gib", type=float, default=2.0, help="of each file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join([PODKILN, *CONTESTANTS]), help="contestants to run")
    parser.add_argument(
        "--large", type=int, default=6, help="files of the bake that only memory and disk are measured of"
    )
    parser.add_argument("--no-large", dest="large", action="store_const", const=0)
    parser.add_argument(
        "--no-warm-up", dest="warm_up", action="store_false", help="leave out the first round"
    )
    parser.add_argument(
        "--no-rest", dest="rest", action="store_false", help="begin on a busy machine: times then say nothing"
    )
    parser.add_argument("--work", type=Path, help="where files, registry and builds go; usually TMPDIR")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    unknown = set(options.only) - {PODKILN, *CONTESTANTS}
    if unknown:
        known = ", ".join([PODKILN, *CONTESTANTS])
        parser.error(f"--only: {', '.join(sorted(unknown))} is not one of {known}")
    return options


def lay(work: Path, serving: file_server.Source, count: int, options: argparse.Namespace) -> Ground:
    """Make the files and build the runtime."""
    harness.tell(f"making {count} files of {options.gib:g} GiB, and the runtime")
    made = files.make(work / "files", count, int(options.gib * GIB))
    variant = files.describe(made, work / "variants" / f"bench{count}.yaml")
    ground = Ground(work, made, serving, variant, rests=options.rest)
    ground.prepare(options.only)
    return ground


def race(
    ground: Ground, contestants: Sequence[str], rounds: int, *, warm_up: bool
) -> tuple[dict[str, list[Seconds]], list[Taken]]:
    """Run all contestants in turns; return their times, and what podkiln took of memory and disk."""
    times: dict[str, list[Seconds]] = {leg: [] for leg in contestants}
    taken: list[Taken] = []
    for number in range(0 if warm_up else 1, rounds + 1):
        for leg in order(contestants, number) if number else [leg for leg in WARM_UP if leg in contestants]:
            found = run(ground, leg, taken)
            harness.tell(f"round {number or 'to warm up'}: {leg} {found.whole:.1f} s")
            if number:
                times[leg].append(found)
    return times, taken


def order(contestants: Sequence[str], number: int) -> list[str]:
    """Return them as a round runs them: another comes first each time, every second one is backwards."""
    shift = number % len(contestants)
    turned = [*contestants[shift:], *contestants[:shift]]
    return turned if number % 2 else turned[::-1]


def run(ground: Ground, leg: str, taken: list[Taken]) -> Seconds:
    """Run one leg into a registry that is empty."""
    with registry(ground.work) as host:
        settle(ground)
        if leg != PODKILN:
            return CONTESTANTS[leg](ground, host, new_word())
        found, each = ground.bake(host, new_word())
        taken.append(each)
        return found


def new_word() -> str:
    """Return a word that stands in no cache."""
    return f"bench-{uuid.uuid4().hex[:12]}"


@contextlib.contextmanager
def registry(work: Path) -> Iterator[str]:
    """Run a registry that is empty and will be."""
    with harness.registries.serve(work / "registry") as host:
        yield host
    shutil.rmtree(work / "registry")


def settle(ground: Ground) -> None:
    """Let each leg begin on the same machine: nothing left to do or to write, files and memory at hand."""
    if ground.rests:
        harness.rest()
    os.sync()
    for file in ground.files:
        with (ground.work / "files" / file.name).open("rb", buffering=0) as opened:
            while opened.read(16 * MIB):
                pass
    # Twice, for the registry is not the only one that takes some: ./build.py and its build come before it.
    ground.source.hold(min(2 * sum(file.size for file in ground.files), harness.available() // 2))


def medians(times: Mapping[str, Sequence[Seconds]]) -> dict[str, Seconds]:
    """Return the median of each leg, for its whole and for each part on its own."""
    return {
        leg: Seconds(
            *(statistics.median(getattr(each, field.name) for each in found) for field in fields(Seconds))
        )
        for leg, found in times.items()
    }


def faster(times: Mapping[str, Sequence[Seconds]]) -> list[Limit]:
    """Return the limits on time, for the contestants that were run."""
    found = medians(times)
    ours = found.get(PODKILN)
    if ours is None:
        return []
    most = {"add": 1 / 4, "add-uncompressed": 1 / 2, "wget": 1 / 4}
    limits = [
        Limit(f"podkiln's time without the runtime by that of {leg}", ours.baking / found[leg].baking, share)
        for leg, share in most.items()
        if leg in found
    ]
    if "copy" in found:
        ratio = ours.weights / found["copy"].weights
        limits.append(Limit("podkiln's time for the weights alone by that of a bare copy", ratio, 1.1))
    return limits


def frugal(taken: Sequence[Taken], what: str) -> list[Limit]:
    """Return the limits on memory and disk."""
    if not taken:
        return []
    memory, disk, left = (max(getattr(each, name) for each in taken) for name in ("memory", "disk", "left"))
    return [
        Limit(f"{what}: peak memory of podkiln and all it runs", memory / MIB, MEMORY_LIMIT / MIB, " MiB"),
        Limit(f"{what}: growth of the builder's disk meanwhile", disk / MIB, DISK_LIMIT / MIB, " MiB"),
        Limit(f"{what}: growth of the builder's disk afterwards", left / MIB, DISK_LIMIT / MIB, " MiB"),
    ]


def show(times: Mapping[str, Sequence[Seconds]], options: argparse.Namespace) -> None:
    """Print the table."""
    found = medians(times)
    ours = found.get(PODKILN)
    rows = [
        [
            leg,
            *(f"{figure:.1f}" for figure in astuple(each)),
            f"{ours.baking / each.baking:.2f}" if ours else "",
            " ".join(f"{one.baking:.1f}" for one in times[leg]),
        ]
        for leg, each in found.items()
    ]
    print(
        f"{options.files} files of {options.gib:g} GiB, median of {options.rounds}, {os.cpu_count()} cores\n"
    )
    print(harness.table(["leg", "whole", "without runtime", "weights", "podkiln/leg", "each round"], rows))


if __name__ == "__main__":
    sys.exit(main())
