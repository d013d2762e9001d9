"""When a process that has ended is started again: after a few growing delays, and then no more.

One that ran for long enough gets all of them back (Supervisor: startretries, startsecs).
"""

from __future__ import annotations

from pod.util.dataclass import dataclass


@dataclass(frozen=True)
class RestartPolicy:
    """Seconds before each new start, and for how many one must have run to get them all back."""

    delays: tuple[float, ...]
    stable: float


COMFYUI = RestartPolicy((1.0, 5.0, 15.0), stable=600.0)  # it takes a minute to come up
# start.sh has the same delays for what looks after these (PAUSES in templates/start/services.j2).
SERVICE = RestartPolicy((1.0, 5.0, 25.0), stable=60.0)


class Restarts:
    """Counts the failures of one process; with `forever`, the last delay is used again and again."""

    def __init__(self, policy: RestartPolicy, *, forever: bool = False) -> None:
        self._policy = policy
        self._forever = forever
        self.failures = 0

    @property
    def most(self) -> int:
        """New starts in a row."""
        return len(self._policy.delays)

    def delay(self, ran: float) -> float | None:
        """Count one more failure after so many seconds; returns those to the next start, None for none."""
        self.failures = 1 if ran > self._policy.stable else self.failures + 1
        if self.failures > self.most and not self._forever:
            return None
        return self._policy.delays[min(self.failures, self.most) - 1]
