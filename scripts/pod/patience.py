"""How much a fetch puts up with: limits in one place, and waiting that grows from failure to failure."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pod.web import Limits, RefusedError, TransientError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

MIB = 1 << 20


@dataclass(frozen=True)
class Policy:
    """Connections per file, bytes per chunk, and seconds.

    A chunk is what a kill -9 costs each connection at most, and what one flush to disk covers.
    """

    connections: int = 8
    chunk: int = 8 * MIB
    tries: int = 8
    backoff: float = 1.0
    backoff_limit: float = 30.0
    retry_after_limit: float = 300.0
    limits: Limits = field(default_factory=Limits)


class SpentError(RefusedError):
    """Nothing has moved for too many tries."""


class Patience:
    """Count failures in a row; anything that arrives in between starts the count anew."""

    def __init__(self, policy: Policy, halted: threading.Event, note: Callable[[str], None]) -> None:
        self._policy = policy
        self._halted = halted
        self._note = note
        self._failures = 0

    def moved(self) -> None:
        """Forget the failures: something arrived."""
        self._failures = 0

    def wait(self, error: TransientError) -> None:
        """Wait before the next try, as long as the server asked or twice as long as last time.

        Raises SpentError after Policy.tries failures in a row. Returns at once when halted.
        """
        policy = self._policy
        self._failures += 1
        if self._failures >= policy.tries:
            raise SpentError(f"did not come in {self._failures} tries ({error}); start the fetch again later")
        if error.retry_after is not None:
            delay = min(error.retry_after, policy.retry_after_limit)
        else:
            delay = min(policy.backoff * 2 ** (self._failures - 1), policy.backoff_limit)
            delay *= random.uniform(0.5, 1.0)  # noqa: S311 (spreads retries; nothing secret)
        self._note(f"{error}; again in {delay:.0f} s")
        self._halted.wait(delay)
