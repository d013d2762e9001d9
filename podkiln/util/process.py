"""Calling other programs: looked up first, echoed, quiet unless they fail."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Final

from podkiln.errors import CommandError
from podkiln.util.interrupts import INTERRUPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

_TAIL_LINES = 12
GRACE: Final = 20.0  # seconds


def echo(argv: Sequence[str]) -> None:
    """Log a command line as one could type it."""
    log.debug("+ %s", shlex.join(argv))


def find_executable(program: str) -> str:
    """Return the path of a program. Raises CommandError when it is not installed."""
    path = shutil.which(program)
    if path is None:
        raise CommandError(f"The program {program!r} is not on the PATH.", hint=f"Install {program}.")
    return path


def tail(text: str, lines: int = _TAIL_LINES) -> str:
    """Return the last lines of a program's output: where programs say why they failed."""
    return "\n".join(text.strip().splitlines()[-lines:])


def run_group(argv: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program that starts others, and capture what it prints; an interruption ends them all.

    They are told to end, and have GRACE seconds to clean up. Raises CommandError.
    """
    echo(argv)
    program = find_executable(argv[0])
    with subprocess.Popen(
        [program, *argv[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=env,
        start_new_session=True,
    ) as process:
        try:
            out, said = process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError), INTERRUPTIONS.held():
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.communicate(timeout=GRACE)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(list(argv), process.returncode, out, said)


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    input: str | None = None,  # noqa: A002 - the name that subprocess uses
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program and capture what it prints.

    Args:
        argv: Program and arguments; never goes through a shell.
        env: The whole environment of the program; None inherits ours.
        cwd: Where to run it.
        check: Raise CommandError when it exits with anything but 0.
        input: Text for its standard input.
        timeout: Seconds; past them the program is ended and CommandError raised.
    """
    echo(argv)
    program = find_executable(argv[0])
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            env=env,
            cwd=cwd,
            input=input,
            timeout=timeout,
            capture_output=True,
            text=True,
            errors="replace",  # what a program prints is for people; it must not stop us by its encoding
            check=False,
        )
    except subprocess.TimeoutExpired as gone:
        raise CommandError(f"`{shlex.join(argv)}` did not end within {timeout:g} s.") from gone
    except OSError as wrong:
        raise CommandError(f"`{shlex.join(argv)}` cannot be run: {wrong.strerror}.") from wrong
    if check and done.returncode:
        output = tail(done.stderr or done.stdout)
        raise CommandError(f"`{shlex.join(argv)}` exited with {done.returncode}:\n{output}")
    return done
