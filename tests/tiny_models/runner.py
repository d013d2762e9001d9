"""Run checks by name, with a line for each: what check.py and serve.py have in common."""

from __future__ import annotations

import sys
import time
import traceback
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Bench = TypeVar("Bench")


def run(
    checks: Mapping[str, Callable[[Bench], None]],
    names: Sequence[str],
    bench: Bench,
    said: Callable[[], Sequence[str]] = list,
) -> int:
    """Run the checks that are named, or all; returns 0, or 1 where one failed.

    Args:
        checks: By name.
        names: Those to run.
        bench: What each of them gets.
        said: Returns what is told of one that failed.
    """
    failed = 0
    for name in names or checks:
        started = time.monotonic()
        try:
            checks[name](bench)
            told = "passed"
        except Exception:  # noqa: BLE001 - the other checks run all the same
            traceback.print_exc()
            print("".join(f"    said: {each}\n" for each in said()), end="", file=sys.stderr)
            failed, told = failed + 1, "FAILED"
        print(f"{name}: {told}, {time.monotonic() - started:.1f} s", flush=True)
    print(f"{len(names or checks)} checks, {failed} failed")
    return 1 if failed else 0
