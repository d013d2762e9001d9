"""What keeps one unit test from being felt in the next."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(autouse=True)
def own_log() -> Generator[None]:
    """Give the log back as it was: a command that is called here makes it its own, on a stderr that ends."""
    log = logging.getLogger("podkiln")
    before = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.level, log.propagate = before
