"""How long the parts of a piece of work took."""

from __future__ import annotations

import time


class Stopwatch:
    """Runs from when it is made; `seconds` holds the parts by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        """Note how long it was since the last part."""
        now = time.monotonic()
        self.seconds[name] = round(now - self._since, 3)
        self._since = now
