"""What the benchmarks share: the test kit, the runtime they build on, tables, and how one ends.

Import it first: it lets `podkiln` and the modules of tests/ be found.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "tests")]

import engines  # noqa: E402 - the path comes first
import registries  # noqa: E402
from images import BASE, COMFYUI, REQUIREMENTS, SUBSTITUTES, SYSTEM_CA  # noqa: E402

__all__ = ["COMFYUI", "REQUIREMENTS", "SUBSTITUTES", "SYSTEM_CA", "engines", "registries"]

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Limit:
    """A figure and what it may be at most."""

    what: str
    found: float
    most: float
    unit: str = ""

    @property
    def kept(self) -> bool:
        """Whether the figure keeps to its limit."""
        return self.found <= self.most

    def __str__(self) -> str:
        verdict = "ok" if self.kept else "MISSED"
        found, most = (f"{_short(each)}{self.unit}" for each in (self.found, self.most))
        return f"{verdict:6}  {self.what}: {found}, at most {most}"


def _short(figure: float) -> str:
    """Return a figure as people write it: whole, or with three digits that tell something."""
    return f"{figure:.0f}" if figure == int(figure) or figure >= 100 else f"{figure:.3g}"


def conclude(limits: Sequence[Limit]) -> int:
    """Print each limit with its verdict; return the exit code, 1 when one was missed."""
    print()
    for limit in limits:
        print(limit)
    return int(not all(limit.kept for limit in limits))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table for a terminal: the first column to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in (head, ["-" * width for width in widths], *rows)
    )


def tell(what: str) -> None:
    """Log a step."""
    print(what, file=sys.stderr, flush=True)


def fail(why: str) -> NoReturn:
    """End with one sentence."""
    sys.exit(f"bench/{Path(sys.argv[0]).name}: {why}")


def run(argv: Sequence[str | Path], env: Mapping[str, str] | None = None, stdin: str | None = None) -> str:
    """Run a program to its end and return what it printed; what goes wrong with it is the end of all."""
    return finish(argv, env, stdin).stdout


def finish(
    argv: Sequence[str | Path], env: Mapping[str, str] | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program as `run` does; return all that it said."""
    words = [str(word) for word in argv]
    full = {**os.environ, **(env or {})}
    done = subprocess.run(words, env=full, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-12:]
        fail(f"{' '.join(words[:4])} … ended with {done.returncode}:\n" + "\n".join(last))
    return done


def need(*programs: str) -> None:
    """End unless all of these programs are there."""
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        fail(f"{', '.join(missing)}: not found; scripts/host/ensure_engine.sh --with-tests installs them")
    run(["docker", "version"])


def podkiln(
    variant: Path,
    out: Path,
    *options: str | Path,
    sources: Mapping[str, Path | str] | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run ./build.py with the substitutes of the tests, as a user would; return its report."""
    report = out.with_name(f"{out.name}.report.json")
    run([*command(variant, out, report, sources), *options], env)
    return dict(json.loads(report.read_text()))


def command(
    variant: Path, out: Path, report: Path, sources: Mapping[str, Path | str] | None = None
) -> list[str | Path]:
    """Return the command line of a build on the small runtime: contract ComfyUI, few wheels, own base."""
    own: dict[str, Path | str] = {"comfyui": COMFYUI, "requirements": REQUIREMENTS, "nodes": "none"}
    taken = {**own, **(sources or {})}
    return [
        *(ROOT / "build.py", "--variant", variant, *BASE, "--ca-bundle", SYSTEM_CA),
        *(word for name, place in taken.items() for word in ("--source", f"{name}={place}")),
        *("--allow-substituted", "--out", out, "--report", report),
    ]


def rest(share: float = 0.03, seconds: float = 3.0, most: float = 60.0) -> None:
    """Wait until the processors have done next to nothing for some seconds (proc(5): /proc/stat)."""
    deadline = time.monotonic() + most
    while True:
        before = _worked()
        time.sleep(seconds)
        worked, whole = (now - then for now, then in zip(_worked(), before, strict=True))
        if worked <= share * whole:
            return
        if time.monotonic() > deadline:
            tell(f"the machine does not come to rest: {worked / whole:.0%} busy with something else")
            return


def _worked() -> tuple[int, int]:
    """Return the ticks that all processors have worked, and all that have gone by."""
    row = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks = [int(word) for word in row]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def available() -> int:
    """Return the bytes of memory that can be allocated without swapping (proc(5): MemAvailable)."""
    text = Path("/proc/meminfo").read_text()
    return int(text.partition("MemAvailable:")[2].split()[0]) << 10
