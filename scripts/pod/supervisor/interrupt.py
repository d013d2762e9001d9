"""What ComfyUI is asked before it is ended: to drop what is queued and interrupt what it works on.

The routes are those of server.py of ComfyUI 0.33.0. A prompt that was interrupted is told to its websockets
and noted in the history; one that dies with the process is not.
"""

from __future__ import annotations

import http.client
import json
import time

from pod import comfyui_http

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PAUSE = 0.05
TIMEOUT = 1.0  # seconds for one answer
_LARGEST = 64 << 20  # bytes of an answer: the queue holds whole workflows
# What ComfyUI may be by now: away, or something that answers otherwise.
_ODD = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, RecursionError)


def interrupt(patience: float) -> int:
    """Interrupt the prompt in work and wait until it has stopped, for so many seconds at most.

    Returns how many prompts were in work or queued; none where ComfyUI does not answer.
    """
    end = time.monotonic() + patience
    try:
        queue = _ask("GET", "/queue")
        count = len(queue["queue_running"]) + len(queue["queue_pending"])
        if count:
            _ask("POST", "/queue", {"clear": True})
            _ask("POST", "/interrupt", {})
        while queue["queue_running"] and time.monotonic() < end:
            time.sleep(PAUSE)
            queue = _ask("GET", "/queue")
    except _ODD:
        return 0
    return count


def _ask(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask ComfyUI; returns its JSON, if any. Raises OSError, HTTPException, ValueError."""
    connection = comfyui_http.connect(comfyui_http.arguments(), TIMEOUT)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read(_LARGEST)
        if answer.status != http.client.OK:
            raise OSError(f"{path} answers {answer.status}")
        return json.loads(data) if data else None
    finally:
        connection.close()
