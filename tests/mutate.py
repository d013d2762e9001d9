"""Put each fault of tests/mutations.yaml into a copy of the tree and see that a test finds it.

    .venv/bin/python tests/mutate.py [--write] [WORD ...]

WORD: only the families that hold one of these. --write: tests/MUTATIONS.md too, in which the rows of other
families stay as they are. Exit code 1 when a fault is found by no test, or can no longer be put in: its line
has changed, and mutations.yaml has to follow.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "MUTATIONS.md"
WORKERS = 2
LIMIT = 600  # seconds for the tests of one fault
HEAD = """\
<!-- Written by tests/mutate.py --write. -->

# Faults that were put in, and the test that found each

`tests/mutations.yaml` has what was changed. Only the tests that are named there were run.

| what would go wrong | file | found by |
| --- | --- | --- |
"""


@dataclass(frozen=True)
class Outcome:
    """`by`: the test that failed first; empty when none did, and `problem` says what happened instead."""

    by: str = ""
    problem: str = "NOT FOUND"

    @property
    def found(self) -> bool:
        """Whether a test failed."""
        return bool(self.by)

    def __str__(self) -> str:
        return self.by or self.problem


def copy_of_the_tree(folder: Path) -> Path:
    """Copy what git knows, and what it soon will."""
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to((ROOT / ".venv").resolve())
    return folder


def run(tree: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests in a tree, up to the first that fails. Raises TimeoutExpired."""
    argv = [".venv/bin/pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=no", *tests]
    return subprocess.run(argv, cwd=tree, capture_output=True, text=True, timeout=LIMIT, check=False)


def try_one(row: dict[str, Any], tree: Path) -> Outcome:
    """Put one fault into a tree, run its tests, and take it out: the test that failed must then pass."""
    path = tree / row["file"]
    text = path.read_text() if path.is_file() else ""
    if text.count(row["old"]) != 1:
        return Outcome(problem="STALE: its line has changed")
    path.write_text(text.replace(row["old"], row["new"]))
    try:
        done = run(tree, *shlex.split(row["tests"]))
    except subprocess.TimeoutExpired:
        return Outcome(problem=f"NO END in {LIMIT} s")
    finally:
        path.write_text(text)
    failed = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode == 1 and failed:
        name = failed[1]
        return Outcome(name) if not run(tree, name).returncode else Outcome(problem=f"FLAKY: {name}")
    if done.returncode == 0:
        return Outcome()
    # Neither green nor red: the fault does not even import, or `tests` names none.
    return Outcome(problem=f"NO TEST RAN: {done.stdout.strip().splitlines()[-1:]}")


def try_all(rows: list[dict[str, Any]]) -> list[Outcome]:
    """Try faults beside each other, each worker in a tree of its own."""
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder, ThreadPoolExecutor(WORKERS) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(WORKERS):
            trees.put(copy_of_the_tree(Path(folder) / str(number)))

        def work(row: dict[str, Any]) -> Outcome:
            tree = trees.get()
            try:
                outcome = try_one(row, tree)
            finally:
                trees.put(tree)
            sys.stdout.write(f"{row['family']}: {outcome}\n")
            sys.stdout.flush()
            return outcome

        return list(pool.map(work, rows))


def written() -> dict[str, str]:
    """Return what the table says of each family."""
    text = TABLE.read_text() if TABLE.is_file() else ""
    return dict(re.findall(r"^\| (.*?) \| `[^`]*` \| `(.*)` \|$", text, re.MULTILINE))


def table(rows: list[dict[str, Any]], known: dict[str, str]) -> str:
    """Return the table of all faults of which something is known."""
    lines = [
        f"| {row['family']} | `{row['file']}` | `{known[row['family']]}` |\n"
        for row in rows
        if row["family"] in known
    ]
    return HEAD + "".join(lines)


def main(words: list[str]) -> int:
    """Try the faults that are asked for; returns the exit code."""
    rows = yaml.safe_load((ROOT / "tests" / "mutations.yaml").read_text())
    write, words = "--write" in words, [word for word in words if word != "--write"]
    chosen = [row for row in rows if not words or any(word in row["family"] for word in words)]
    outcomes = try_all(chosen)
    if write:
        tried = {row["family"]: str(outcome) for row, outcome in zip(chosen, outcomes, strict=True)}
        TABLE.write_text(table(rows, {**written(), **tried}))
    found = sum(outcome.found for outcome in outcomes)
    sys.stdout.write(f"{found} of {len(outcomes)} faults were found\n")
    return 0 if found == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
