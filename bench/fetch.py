#!/usr/bin/env python3
"""How fast a pod's models arrive, beside what a person would type instead.

    bench/fetch.py [--size 4GiB] [--count 200] [--each 5MiB] [--rounds 3] [--dir DIR]

A large file, and many small ones, from a server on this machine that answers after 20 ms and gives a
connection 50 MB/s at most: `fetch` as a pod runs it, `aria2c -x16 -s16`, `wget` and `hf download`, one after
the other in each round, each into an empty folder, each until the sha256 of every file is checked. Gated
are the medians: no slower than aria2c, and three times as fast as wget.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
SERVER = ROOT / "tests" / "servers" / "slow_hub.py"
POD_PYTHON = Path("/usr/bin/python3")  # Debian's own, as in a pod
HF = Path(sys.executable).with_name("hf")
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
BLOCK = 1 << 20
TOOLS = ("podkiln", "aria2c", "wget", "hf")


@dataclass(frozen=True)
class Case:
    """Files of one kind: names below `base`, with size and sha256."""

    title: str
    repository: str
    base: str
    files: dict[str, tuple[int, str]]

    def sums(self, folder: Path) -> str:
        """Return what `sha256sum --check` reads."""
        return "".join(f"{sha256}  {folder / name}\n" for name, (_, sha256) in self.files.items())


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 when a limit is missed."""
    options = _parser().parse_args(arguments)
    for tool, package in (("aria2c", "aria2"), ("wget", "wget")):
        if tool in options.tools and not shutil.which(tool):
            sys.exit(f"bench/fetch.py: {tool} is not here: apt-get install {package}")
    if "hf" in options.tools and not HF.exists():
        sys.exit(f"bench/fetch.py: {HF} is not here: run it with the Python of .venv")
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="podkiln-bench-") as scratch:
        folder = Path(scratch)
        source = folder / "source"
        digests = make(source, options.size, options.count, options.each)
        with serving(source, options.size, options.count, options.each) as base:
            held = [compare(case, folder, options) for case in cases(base, options, digests)]
    return int(not all(held))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=amount, default=amount("4GiB"), help="bytes, or with KiB, MiB, GiB")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--each", type=amount, default=amount("5MiB"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", help="where to fetch to; needs three times --size")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS, help="for development")
    parser.add_argument("--factor", type=float, default=3.0, help="how many times as fast as wget it must be")
    return parser


def amount(text: str) -> int:
    """Read bytes, with or without a unit."""
    unit = next((unit for unit in UNITS if text.endswith(unit)), "")
    return int(text.removesuffix(unit)) * UNITS.get(unit, 1)


def make(source: Path, size: int, count: int, each: int) -> list[str]:
    """Write the bytes to serve; returns the sha256 of the large file, then those of the small ones."""
    noise = os.urandom(BLOCK - 8)
    whole = hashlib.sha256()
    with source.open("wb") as handle:
        for number in range(-(-max(size, count * each) // BLOCK)):
            block = number.to_bytes(8, "little") + noise
            handle.write(block)
            whole.update(block[: max(0, size - number * BLOCK)])
    digests = [whole.hexdigest()]
    with source.open("rb") as handle:
        digests += [hashlib.sha256(handle.read(each)).hexdigest() for _ in range(count)]
    return digests


@contextlib.contextmanager
def serving(source: Path, size: int, count: int, each: int) -> Iterator[str]:
    """Run the server; yields its address."""
    numbers = [f"--size={size}", f"--count={count}", f"--each={each}"]
    with subprocess.Popen(
        [sys.executable, str(SERVER), str(source), *numbers], stdout=subprocess.PIPE
    ) as server:
        try:
            port = server.stdout.readline() if server.stdout else b""
            yield f"http://127.0.0.1:{int(port)}"
        finally:
            server.kill()


def cases(base: str, options: argparse.Namespace, digests: list[str]) -> list[Case]:
    """Return the two that are measured."""
    many = {f"{n:03}.gguf": (options.each, digests[n + 1]) for n in range(options.count)}
    size, each = (f"{number / BLOCK:.0f} MiB" for number in (options.size, options.each))
    return [
        Case(f"one file of {size}", "one", f"{base}/one", {"model.gguf": (options.size, digests[0])}),
        Case(f"{options.count} files of {each}", "many", f"{base}/many", many),
    ]


def compare(case: Case, scratch: Path, options: argparse.Namespace) -> bool:
    """Measure all tools on one case, print the table; tells whether the limits are kept."""
    times: dict[str, list[float]] = {tool: [] for tool in options.tools}
    for _ in range(options.rounds):
        for tool, taken in times.items():
            taken.append(measure(tool, case, scratch))
    median = {tool: statistics.median(taken) for tool, taken in times.items()}
    ours = median["podkiln"]
    print(f"\n{case.title}, checked; median of {options.rounds}")
    limits = {"aria2c": 1.0, "wget": options.factor}
    held = True
    for tool, taken in times.items():
        ratio = median[tool] / ours
        line = f"  {tool:8} {median[tool]:7.2f} s  ({min(taken):.2f} to {max(taken):.2f})"
        if tool != "podkiln":
            line += f"  {ratio:5.2f} times podkiln's"
        if limit := limits.get(tool):
            kept = ratio >= limit
            held = held and kept
            line += f"; limit {limit:.1f} {'kept' if kept else 'MISSED'}"
        print(line, flush=True)
    return held


def measure(tool: str, case: Case, scratch: Path) -> float:
    """Fetch a case with one tool into an empty folder, and check it; returns the seconds that took."""
    folder = scratch / tool
    folder.mkdir()
    commands, environment = {"podkiln": podkiln, "aria2c": aria2c, "wget": wget, "hf": hf}[tool](case, folder)
    os.sync()  # what the one before has written is not this one's burden
    begun = time.monotonic()
    for command in commands:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            words = (done.stderr + done.stdout).strip().splitlines() or ["it said nothing"]
            sys.exit(f"bench/fetch.py: {command[0]} ended with {done.returncode}: {words[-1]}")
    took = time.monotonic() - begun
    arrived = {path.name: path.stat().st_size for path in folder.rglob("*.gguf")}
    if arrived != {name: size for name, (size, _) in case.files.items()}:
        sys.exit(f"bench/fetch.py: {tool} left {len(arrived)} files, not what was asked for")
    shutil.rmtree(folder)
    return took


Plan = tuple[list[list[str]], dict[str, str]]


def podkiln(case: Case, folder: Path) -> Plan:
    """Fetch as a pod does: one model, whose files lie on a plain server; they are checked on the way."""
    rows = [
        {
            "folder": "checkpoints",
            "name": name,
            "size": size,
            "sha256": sha256,
            "pickle": False,
            "optional": False,
            "source": {"kind": "https", "url": f"{case.base}/{name}"},
        }
        for name, (size, sha256) in case.files.items()
    ]
    model = {"id": "bench", "files": rows}
    (folder / "models.json").write_text(json.dumps({"schema": 1, "models": [model]}))
    (folder / "decision.json").write_text(json.dumps({"models": [{"id": "bench", "enabled": True}]}))
    environment = {
        "PATH": os.environ["PATH"],
        "PODKILN_ROOT": str(folder),
        "PODKILN_RUN": str(folder),
        "WORKSPACE": str(folder / "workspace"),
    }
    python = POD_PYTHON if POD_PYTHON.exists() else Path(sys.executable)
    return [[str(python), "-I", "-S", str(ROOT / "scripts"), "fetch"]], environment


def aria2c(case: Case, folder: Path) -> Plan:
    """Fetch with sixteen connections, as many files at once, and its own checksums."""
    entries = [
        f"{case.base}/{name}\n checksum=sha-256={sha256}\n" for name, (_, sha256) in case.files.items()
    ]
    inputs = folder / "input"
    inputs.write_text("".join(entries))
    files = ["--dir", str(folder), "--input-file", str(inputs), "--file-allocation=falloc"]
    return [["aria2c", "-x16", "-s16", "-j16", "--quiet", *files]], dict(os.environ)


def wget(case: Case, folder: Path) -> Plan:
    """Fetch one after the other, then check."""
    (folder / "urls").write_text("".join(f"{case.base}/{name}\n" for name in case.files))
    fetch = ["wget", "--quiet", "--directory-prefix", str(folder), "--input-file", str(folder / "urls")]
    return [fetch, check(case, folder)], dict(os.environ)


def hf(case: Case, folder: Path) -> Plan:
    """Fetch a repository with the hub's own client as it comes, then check."""
    server = case.base.rpartition("/")[0]
    environment = {**os.environ, "HF_ENDPOINT": server, "HF_HOME": str(folder / "home")}
    fetch = [str(HF), "download", f"bench/{case.repository}", "--local-dir", str(folder)]
    return [fetch, check(case, folder)], environment


def check(case: Case, folder: Path) -> list[str]:
    """Return the command that checks what has arrived."""
    (folder / "sums").write_text(case.sums(folder))
    return ["sha256sum", "--check", "--quiet", str(folder / "sums")]


if __name__ == "__main__":
    sys.exit(main())
