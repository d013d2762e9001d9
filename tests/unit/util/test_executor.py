"""Work begins when all of it is known to who must end it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from podkiln.util.executor import submit_all

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_all_is_done_in_order() -> None:
    with ThreadPoolExecutor(2) as pool:
        futures = submit_all(pool, str, range(5))
        assert [future.result() for future in futures] == ["0", "1", "2", "3", "4"]


def test_nothing_begins_before_all_is_submitted() -> None:
    happened: list[str] = []

    def things() -> Iterator[str]:
        yield "first"
        time.sleep(0.1)
        happened.append("last submitted")
        yield "last"

    with ThreadPoolExecutor(2) as pool:
        submit_all(pool, happened.append, things())
    assert happened[0] == "last submitted"
    assert sorted(happened[1:]) == ["first", "last"]


def test_nothing_begins_where_that_is_broken_off() -> None:
    begun: list[int] = []

    def things() -> Iterator[int]:
        yield 0
        time.sleep(0.1)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool, pytest.raises(KeyboardInterrupt):
        submit_all(pool, begun.append, things())
    assert begun == []


def test_a_failure_is_the_future_s_own() -> None:
    with ThreadPoolExecutor(2) as pool:
        good, bad = submit_all(pool, int, ["1", "one"])
        assert good.result() == 1
        assert isinstance(bad.exception(), ValueError)
