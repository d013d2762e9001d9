"""The model, on its way or there: what probes and requests are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pod.supervisor.ping_server import FAILING, SERVING, STARTING

if TYPE_CHECKING:
    from server.generation.request import Model
    from server.jobs.queue import Queue

LOADING, READY, FAILED = "loading", "ready", "failed"
_STATUS: Final = {LOADING: STARTING, READY: SERVING, FAILED: FAILING}


class Served:
    """What is served, and by which queue."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.model: Model | None = None
        self.phase = "starting"
        """What loading is at."""
        self.problem = ""
        """Why there is no model and will be none."""

    @property
    def state(self) -> str:
        """LOADING, READY or FAILED."""
        if self.problem or self.queue.broken.is_set() or self.queue.stuck or self.queue.stopping:
            return FAILED
        return READY if self.model else LOADING

    @property
    def status(self) -> int:
        """What /ping answers."""
        return _STATUS[self.state]
