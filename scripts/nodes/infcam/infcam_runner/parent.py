"""The end of ComfyUI is the end of this process and of all that it has started.

It leads a session of its own, so that the stop button ends what upstream's script has started too; then what
ends ComfyUI's process group does not reach it. Its stdin is a pipe of ComfyUI's, which ends with that.
"""

from __future__ import annotations

import os
import signal
import threading


def watch() -> None:
    """Kill this process's group when its stdin ends; nothing where it is in somebody else's session."""
    if os.getsid(0) != os.getpid():
        return
    pipe = os.dup(0)  # which no child inherits
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    threading.Thread(target=_wait, args=(pipe,), daemon=True).start()


def _wait(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os.killpg(0, signal.SIGKILL)
