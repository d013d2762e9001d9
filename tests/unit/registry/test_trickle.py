"""A trickle is told from a slow line, and time that the reader takes does not count."""

from __future__ import annotations

import pytest

from pod.net.http import TransientError
from podkiln.registry.trickle import LeastRate


def test_a_trickle_ends() -> None:
    rate = LeastRate("hub.test", slowest=4096, window=30)
    for _ in range(99):
        rate.took(1, 0.3)
    with pytest.raises(TransientError, match=r"hub\.test gives 0\.0 kB/s"):
        rate.took(1, 0.4)


def test_a_slow_line_goes_on() -> None:
    rate = LeastRate("hub.test", slowest=4096, window=30)
    for _ in range(100):
        rate.took(5000, 1)
