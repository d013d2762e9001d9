"""Ctrl-C while uploads are under way: one ends them, a second one changes nothing, a third one ends at once.

The push is a process of its own, signalled as a terminal or a CI runner would.
"""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from layouts import layer_of, make_layout
from servers.registry import Fault, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

PROCESS = Path(__file__).resolve().parents[2] / "push_process.py"
_SECONDS = 30.0


@pytest.fixture
def image(tmp_path: Path) -> Path:
    noise = random.Random(1).randbytes(1 << 20).hex()
    layers = [layer_of(**{f"l{number}": noise[number:]}) for number in range(3)]
    return make_layout(tmp_path / "layout", *layers)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start(image: Path, registry: Registry) -> subprocess.Popen[str]:
    """Push until all three uploads are under way; a PATCH of this registry is never answered in time."""
    name = f"{registry.host()}/you/app:v1"
    process = subprocess.Popen(
        [sys.executable, str(PROCESS), str(image), name], stderr=subprocess.PIPE, text=True
    )
    until(lambda: len(registry.asked("PATCH")) == 3)
    return process


def end(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    said = process.communicate(timeout=_SECONDS)[1]
    return process.returncode, said.splitlines()


def slow(method: str, seconds: float) -> Fault:
    return Fault("slow", method, times=-1, seconds=seconds)


def test_one_ctrl_c_deletes_all_uploads(image: Path) -> None:
    with Registry(faults=[slow("PATCH", 1)]) as registry:
        process = start(image, registry)
        process.send_signal(signal.SIGINT)
        assert end(process) == (130, ["podkiln: Interrupted; nothing half-made was left behind."])
        assert registry.uploads == {}


@pytest.mark.parametrize(
    ("first", "code", "says"),
    [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Ended by SIGTERM")],
)
def test_a_second_ctrl_c_does_not_break_off_the_cleaning_up(
    image: Path, first: signal.Signals, code: int, says: str
) -> None:
    with Registry(faults=[slow("PATCH", 1), slow("DELETE", 2)]) as registry:
        process = start(image, registry)
        process.send_signal(first)
        until(lambda: len(registry.asked("DELETE")) > 0)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        ended, said = end(process)
        assert registry.uploads == {}
    assert (ended, said[-1]) == (code, f"podkiln: {says}; nothing half-made was left behind.")
    # How many are left is as it is when the second one comes.
    left = r"Deleting \d half-made uploads? at 127\.0\.0\.1:\d+|Cleaning up what is half-made"
    assert re.fullmatch(rf"podkiln: ({left}); another Ctrl-C ends at once and leaves them there\.", said[0])


def test_a_third_ctrl_c_ends_at_once_and_says_what_that_leaves(image: Path) -> None:
    with Registry(faults=[slow("PATCH", 1), slow("DELETE", 20)]) as registry:
        process = start(image, registry)
        process.send_signal(signal.SIGINT)
        until(lambda: len(registry.asked("DELETE")) > 0)
        begun = time.monotonic()
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)  # two that come at once may be one
        ended, said = end(process)
        assert time.monotonic() - begun < 5
        assert len(registry.uploads) == 3
        host = registry.host()
    assert ended == 130
    assert said[-1].startswith("podkiln: Interrupted three times and ended at once; 3 half-made uploads at ")
    assert said[-1].endswith(f" at {host} may have been left behind.")


@pytest.mark.parametrize(
    ("status", "slowness"),
    [
        (405, 1),
        # The answer to the body names the next address of an upload; of the last one, registries say 404.
        (404, 20),
    ],
)
def test_uploads_that_are_not_deleted_are_not_denied(status: int, slowness: int, image: Path) -> None:
    with Registry(
        faults=[slow("PATCH", slowness), Fault("status", "DELETE", times=-1, status=status)]
    ) as registry:
        process = start(image, registry)
        process.send_signal(signal.SIGINT)
        ended, said = end(process)
        assert len(registry.uploads) == 3
        host = registry.host()
    left = f"3 half-made uploads at {host} could not be deleted there"
    assert ended == 130
    assert said == [f"podkiln: Interrupted; {left}, and stay until the registry removes them by itself."]


def test_cleaning_up_takes_a_bounded_time(image: Path) -> None:
    with Registry(faults=[slow("PATCH", 1), slow("DELETE", 60)]) as registry:
        process = start(image, registry)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        ended, said = end(process)
        assert time.monotonic() - begun < 15
    assert ended == 130
    assert "3 half-made uploads" in said[-1]
