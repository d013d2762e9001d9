"""The states of a file on its way and of a whole fetch, as fetch.json has them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """One file's. Being words, they compare with what was read from fetch.json."""

    QUEUED = "queued"
    RESOLVING = "resolving"  # its hub is asked what to expect
    CHECKING = "checking"  # what is there is hashed
    WAITING = "waiting"  # another pod on this volume fetches it
    FETCHING = "fetching"
    VERIFYING = "verifying"  # all has arrived, and is hashed to its end
    PRESENT = "present"  # it was there
    FETCHED = "fetched"
    FAILED = "failed"
    STOPPED = "stopped"


FOR_GOOD = frozenset({State.PRESENT, State.FETCHED, State.FAILED})
OVER = FOR_GOOD | {State.STOPPED}
ACTIVE = frozenset(State) - OVER - {State.QUEUED}


class RunState(StrEnum):
    """A fetch's."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # at least one file's fetch
    STOPPED = "stopped"
