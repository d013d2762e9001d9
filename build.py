#!/usr/bin/env python3
"""The command. Makes .venv from the hash-locked requirements when there is none that fits, and goes on in it.

Only the standard library here: this file must run on a machine that has nothing but Python.
"""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130
NOTHING_MADE = "Interrupted; nothing half-made was left behind."
HALF_MADE = "Interrupted while making .venv; the next run makes it again."

try:  # Ctrl-C may come while these are imported
    import contextlib
    import fcntl
    import hashlib
    import shutil
    import signal
    import subprocess
    import tempfile
    import time
    from pathlib import Path
    from typing import IO, TYPE_CHECKING, NoReturn
except KeyboardInterrupt:
    os.write(2, f"podkiln: {NOTHING_MADE}\n".encode())
    os._exit(INTERRUPTED)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
OLDEST = (3, 11)
RUN = "requirements.txt"
DEVELOP = "requirements-dev.txt"  # holds all of RUN, and the linters and test tools

SILENCE = 2  # seconds after which the set-up says what it is doing

# Variables of the caller's that must not decide what goes into .venv.
MISLEADING = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER"}
# What venv and pip say, and what that means.
HINTS = {
    "ensurepip": "its venv module is not there; on Debian: apt-get install python3-venv",
    "connection broken": "no package index can be reached; PIP_INDEX_URL may name another",
    "No space left": "the disk is full",
}


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


def repair(made: str) -> None:
    """Make .venv again: a package in it turned out to be missing or damaged, which no stamp shows.

    `made` is when the environment that failed was finished; one that was made since is left alone.
    """
    with alone():
        stamp_file = VENV / "podkiln-stamp"
        try:
            if str(stamp_file.stat().st_mtime_ns) != made:
                return
            wanted = stamp_file.read_text(encoding="utf-8").partition(" ")[0]
            stamp_file.unlink()
        except OSError:
            return
    print("podkiln: a package in .venv is missing or damaged", file=sys.stderr)
    ensure(DEVELOP if wanted == DEVELOP else RUN)


def ensure(requirements: str = RUN) -> None:
    """Make .venv when it is missing, half-made, broken, or from other requirements."""
    if fits(requirements):
        return
    with alone():
        if fits(requirements):
            return
        # A finished environment that is wanted with more in it stays usable meanwhile, and if that fails.
        if fits(RUN):
            print("podkiln: adding the development tools to .venv", file=sys.stderr)
        else:
            print("podkiln: making .venv (once)", file=sys.stderr)
            shutil.rmtree(VENV, ignore_errors=True)
            call([sys.executable, "-m", "venv", str(VENV)], "Python cannot make a virtual environment here")
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
        install = [*pip, "--progress-bar=off", "--require-hashes", "-r", str(ROOT / requirements)]
        call(install, f"{requirements} cannot be installed")
        aside = VENV / "podkiln-stamp.part"
        aside.write_text(stamp(requirements), encoding="utf-8")
        aside.replace(VENV / "podkiln-stamp")


def call(argv: list[str], failure: str) -> None:
    """Run a step of the set-up; show that it goes on, and what it printed only when it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    environment["PYTHONSAFEPATH"] = "1"  # nor what happens to lie in the folder that we are called from
    with tempfile.TemporaryFile() as printed:
        code = wait(argv, environment, printed)
        printed.seek(0)
        said = printed.read().decode(errors="replace")
    if not code:
        return
    for sign, hint in HINTS.items():
        if sign in said:
            fail(f"{failure}: {hint}.")
    print("\n".join(said.strip().splitlines()[-12:]), file=sys.stderr)
    fail(f"{failure} (see above).")


def wait(argv: list[str], environment: dict[str, str], printed: IO[bytes]) -> int:
    """Run a command whose output goes into a file; tell every two seconds what it printed last."""
    began, terminal = time.monotonic(), sys.stderr.isatty()
    with subprocess.Popen(argv, stdout=printed, stderr=subprocess.STDOUT, env=environment) as process:
        try:
            while True:
                try:
                    return process.wait(SILENCE)
                except subprocess.TimeoutExpired:
                    line = f"podkiln: .venv: {time.monotonic() - began:.0f} s, {last_line(printed)}"[:79]
                    text = f"\r\x1b[K{line}" if terminal else f"{line}\n"
                    print(text, end="", file=sys.stderr, flush=True)
        except BaseException:  # Ctrl-C: it goes first
            process.kill()
            raise
        finally:
            if terminal:
                print("\r\x1b[K", end="", file=sys.stderr)


def last_line(printed: IO[bytes]) -> str:
    """Return the last line of a file that is being written, warnings apart."""
    end = os.fstat(printed.fileno()).st_size
    tail = os.pread(printed.fileno(), 4096, max(0, end - 4096)).decode(errors="replace")
    lines = [line.strip() for line in tail.splitlines() if line.strip() and not line.startswith("WARNING")]
    return lines[-1].partition(" (")[0] if lines else "an environment for Python packages"


def main() -> NoReturn:
    """Make sure of the environment, then become podkiln.cli in it."""
    if sys.version_info < OLDEST:
        fail(f"Python {'.'.join(map(str, OLDEST))} or newer is needed; this is {sys.version.split()[0]}.")
    failed = os.environ.pop("PODKILN_REPAIR", None)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # podkiln.__main__ blocks it for a repair
        if failed:
            repair(failed)
        ensure()
        # Python answers Ctrl-C while it starts with a fatal error: it waits until podkiln.__main__ takes it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    except KeyboardInterrupt:
        fail(NOTHING_MADE if fits(RUN) else HALF_MADE, INTERRUPTED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(f".venv cannot be made: {where}{error.strerror or error}.")
    python = VENV / "bin" / "python"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    os.environ.pop("PYTHONHOME", None)
    if not failed:  # what to call for a repair, once
        os.environ["PODKILN_BUILD"] = sys.executable
    # -P: modules are not looked for in the folder that we are called from.
    os.execv(python, [str(python), "-P", "-m", "podkiln", *sys.argv[1:]])


if __name__ == "__main__":
    main()
