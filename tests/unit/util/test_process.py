"""Calling programs: what fails becomes one CommandError that names the command line."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from podkiln.errors import CommandError
from podkiln.util import process

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_program_prints_is_returned() -> None:
    done = process.run(["sh", "-c", "cat; echo warned >&2"], input="said")
    assert (done.stdout, done.stderr, done.returncode) == ("said", "warned\n", 0)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["podkiln-no-such-program"], r"'podkiln-no-such-program' is not on the PATH"),
        (["sh", "-c", "echo why >&2; exit 3"], r"`sh -c 'echo why >&2; exit 3'` exited with 3:\nwhy$"),
        (["sh", "-c", "echo on stdout; exit 3"], r"exited with 3:\non stdout$"),
        (["sleep", "5"], r"`sleep 5` did not end within 0.1 s"),
    ],
)
def test_a_failure_is_one_error(argv: list[str], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        process.run(argv, timeout=0.1 if argv[0] == "sleep" else None)


def test_a_file_that_is_no_program_is_one_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    with pytest.raises(CommandError, match="cannot be run: Exec format error"):
        process.run([str(broken)])


def test_a_failure_can_be_looked_at_instead() -> None:
    assert process.run(["sh", "-c", "exit 3"], check=False).returncode == 3


def test_output_in_another_encoding_does_no_harm() -> None:
    assert process.run(["printf", r"a\377b"]).stdout == "a\ufffdb"


def test_the_tail_is_where_programs_say_why() -> None:
    lines = [str(number) for number in range(40)]
    assert process.tail("\n".join(lines) + "\n\n").splitlines() == lines[-12:]


def test_an_interruption_ends_what_a_program_has_started_and_lets_it_clean_up(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    started, cleaned = tmp_path / "pid", tmp_path / "cleaned"
    script = f"trap 'touch {cleaned}; exit' TERM; sleep 60 & echo $! >{started}; wait"
    earlier = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            process.run_group(["sh", "-c", script])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert cleaned.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
