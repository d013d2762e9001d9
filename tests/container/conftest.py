"""What container tests share. They need a Docker Engine; where it is missing they fail, loudly."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import engines
import pytest
import registries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """A function that starts a fresh local registry and returns its host:port."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()

        def start() -> str:
            directory = tmp_path_factory.mktemp(f"registry-{next(numbers)}")
            return stack.enter_context(registries.serve(directory))

        yield start


@pytest.fixture(scope="session")
def overlay2_engine() -> Iterator[str]:
    """DOCKER_HOST of an engine with overlay2 image storage; it has no network of its own."""
    with engines.serve(containerd=False) as host:
        yield host


@pytest.fixture(scope="session")
def containerd_engine() -> Iterator[str]:
    """DOCKER_HOST of an engine with containerd image storage; it has no network of its own."""
    with engines.serve(containerd=True) as host:
        yield host
