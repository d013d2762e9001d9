#!/usr/bin/env python3
"""The command. Makes .venv from the hash-locked requirements when there is none that fits, and goes on in it.

Only the standard library here: this file must run on a machine that has nothing but Python.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
OLDEST = (3, 11)
RUN = "requirements.txt"
DEVELOP = "requirements-dev.txt"  # holds all of RUN, and the linters and test tools


def fail(message: str, code: int = 1) -> NoReturn:
    """End with one sentence."""
    print(f"podkiln: {message}", file=sys.stderr)
    sys.exit(code)


def stamp(requirements: str) -> str:
    """Return what identifies an environment made from a requirements file by this Python."""
    content = hashlib.sha256((ROOT / requirements).read_bytes()).hexdigest()
    return f"{requirements} {content} {sys.version_info.major}.{sys.version_info.minor} {sys.base_prefix}\n"


def fits(requirements: str) -> bool:
    """Return whether .venv was finished from these requirements, or from those that hold them."""
    try:
        made = (VENV / "podkiln-stamp").read_text(encoding="utf-8")
    except OSError:
        return False
    wanted = {stamp(requirements), stamp(DEVELOP)}
    return made in wanted and os.access(VENV / "bin" / "python", os.X_OK)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep two first runs from making one environment together."""
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure(requirements: str = RUN) -> None:
    """Make .venv when it is missing, half-made, broken, or from other requirements."""
    if fits(requirements):
        return
    with alone():
        if fits(requirements):
            return
        if fits(
            RUN
        ):  # a finished environment is wanted with more in it: what is there stays usable meanwhile
            print("podkiln: adding the development tools to .venv", file=sys.stderr)
        else:
            print("podkiln: making .venv (once)", file=sys.stderr)
            shutil.rmtree(VENV, ignore_errors=True)
            call([sys.executable, "-m", "venv", str(VENV)], "Python cannot make a virtual environment here")
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        call(
            [*pip, "--require-hashes", "-r", str(ROOT / requirements)], f"{requirements} cannot be installed"
        )
        aside = VENV / "podkiln-stamp.part"
        aside.write_text(stamp(requirements), encoding="utf-8")
        aside.replace(VENV / "podkiln-stamp")


def call(argv: list[str], failure: str) -> None:
    """Run a step of the set-up; show what it printed only when it fails."""
    # A PYTHONPATH or PIP_TARGET of the caller's must not decide what goes in.
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET"}}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        lines = (done.stderr or done.stdout).strip().splitlines()
        print("\n".join(lines[-12:]), file=sys.stderr)
        hint = "on Debian: apt-get install python3-venv" if "ensurepip" in done.stderr else "see above"
        fail(f"{failure} ({hint}).")


def main() -> NoReturn:
    """Make sure of the environment, then become podkiln.cli in it."""
    if sys.version_info < OLDEST:
        fail(f"Python {'.'.join(map(str, OLDEST))} or newer is needed; this is {sys.version.split()[0]}.")
    try:
        ensure()
    except KeyboardInterrupt:
        fail("interrupted while making .venv; the next run makes it again.", 130)
    except OSError as error:
        fail(f".venv cannot be made: {error}.")
    python = VENV / "bin" / "python"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    os.execv(python, [str(python), "-m", "podkiln", *sys.argv[1:]])


if __name__ == "__main__":
    main()
