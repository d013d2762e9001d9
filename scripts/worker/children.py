"""Processes that the worker forks end with it, however it ends.

The SDK's heartbeat is one (rp_ping.py of runpod 1.12.0). Left behind by a worker that was killed, it would
tell the platform for ever that the job of that one is at work.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def end_with_this() -> None:
    """Have each process that is forked from now on killed when this one ends."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended before
            os._exit(1)

    os.register_at_fork(after_in_child=tie)
