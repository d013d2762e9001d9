"""The restart policy: each delay once, then no more; whoever ran for long enough gets them all back."""

from __future__ import annotations

import re
from pathlib import Path

from pod.util.restart import COMFYUI, SERVICE, RestartPolicy, Restarts

SERVICES = Path(__file__).resolve().parents[4] / "templates/start/services.j2"
POLICY = RestartPolicy((1.0, 5.0), stable=60.0)


def test_each_delay_comes_once_and_then_no_more() -> None:
    restarts = Restarts(POLICY)
    assert [restarts.delay(0.1) for _ in range(3)] == [1.0, 5.0, None]
    assert restarts.failures == 3


def test_what_ran_for_long_gets_all_of_them_back() -> None:
    restarts = Restarts(POLICY)
    assert [restarts.delay(ran) for ran in (0.1, 60.0, 60.1, 0.1, 0.1)] == [1.0, 5.0, 1.0, 5.0, None]


def test_what_is_needed_gets_the_last_one_for_ever() -> None:
    restarts = Restarts(POLICY, forever=True)
    assert [restarts.delay(0.1) for _ in range(4)] == [1.0, 5.0, 5.0, 5.0]


def test_the_table() -> None:
    assert (COMFYUI.delays, COMFYUI.stable) == ((1.0, 5.0, 15.0), 600.0)
    assert (SERVICE.delays, SERVICE.stable) == ((1.0, 5.0, 25.0), 60.0)


def test_start_sh_gives_what_looks_after_services_as_many_starts_after_the_same_delays() -> None:
    found = re.findall(r"^readonly PAUSES=\((.*)\) TRIES=(.*)$", SERVICES.read_text(), re.MULTILINE)
    assert found == [(" ".join(f"{seconds:g}" for seconds in SERVICE.delays), str(len(SERVICE.delays)))]
