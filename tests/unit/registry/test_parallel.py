"""Work on several blobs at a time: in order when all is well, ended soon when something is not."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from servers.registry import Fault, Registry

from podkiln.errors import IntegrityError
from podkiln.oci import spec
from podkiln.registry.cancellation import CancelledError
from podkiln.registry.parallel import at_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.registry import Repository


def test_what_was_found_comes_in_order(repository: Repository) -> None:
    def work(number: int) -> int:
        time.sleep(0.02 * (5 - number))
        return number * number

    assert at_once(repository.transport, range(5), work) == [0, 1, 4, 9, 16]


def test_a_failure_ends_those_before_it_that_would_wait_for_long(
    registry: Registry, repository: Repository
) -> None:
    """The first reads a blob that does not come; the second fails; the third is never begun."""
    blob = spec.Descriptor(spec.LAYER, spec.digest_of(b"x"), 1)
    registry.blobs["you/app", blob.digest] = b"x"
    registry.faults.append(Fault("hang", "GET", "blobs", seconds=20.0))
    waiting, begun, worked = threading.Event(), time.monotonic(), []

    def work(number: int) -> None:
        worked.append(number)
        if number == 0:
            waiting.set()
            b"".join(repository.read(blob))
        waiting.wait(10)
        time.sleep(0.2)
        raise IntegrityError(f"{number} is wrong")

    with pytest.raises(IntegrityError, match="1 is wrong"):
        at_once(repository.transport, [0, 1], work)
    assert time.monotonic() - begun < 5
    assert sorted(worked) == [0, 1]


def test_the_failure_that_stopped_the_work_is_told_not_those_that_it_made(repository: Repository) -> None:
    failed = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            failed.wait(10)
            raise CancelledError("given up")
        failed.set()
        raise IntegrityError("the reason")

    with pytest.raises(IntegrityError, match="the reason"):
        at_once(repository.transport, [0, 1], work)


def test_nothing_to_do_is_done(repository: Repository) -> None:
    assert at_once(repository.transport, [], lambda thing: thing) == []


def test_an_interruption_before_all_are_submitted_cancels(repository: Repository) -> None:
    def things() -> Iterator[int]:
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        at_once(repository.transport, things(), lambda thing: thing)
    assert repository.transport.cancelled.is_set()
