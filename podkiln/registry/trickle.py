"""What tells a trickle from a slow line: how fast a body comes, and when it has come far enough."""

from __future__ import annotations

from typing import Final

from pod.net.http import TransientError

_HEADWAY: Final = 1 << 20  # bytes
_PARTS: Final = 32  # of what is smaller than that many of them

_SLOWEST: Final = 4 << 10  # bytes a second; little, since many connections may share a thin line
_WINDOW: Final = 30.0  # seconds of waiting over which that is measured


def headway(size: int) -> int:
    """Return how many bytes of `size` must have come for earlier failures to be forgotten.

    One alone does not do: a server that cuts after each would never be given up.
    """
    return min(_HEADWAY, size // _PARTS + 1)


class LeastRate:
    """Watches how fast a body comes; only time spent waiting for it counts, not what its reader takes."""

    def __init__(self, host: str, slowest: float = _SLOWEST, window: float = _WINDOW) -> None:
        self._host, self._slowest, self._window = host, slowest, window
        self._bytes, self._waited = 0, 0.0

    def took(self, count: int, seconds: float) -> None:
        """Note bytes that were waited for. Raises the pod's TransientError for a trickle."""
        self._bytes += count
        self._waited += seconds
        if self._waited < self._window:
            return
        rate = self._bytes / self._waited
        if rate < self._slowest:
            raise TransientError(f"{self._host} gives {rate / 1000:.1f} kB/s on one connection")
        self._bytes, self._waited = 0, 0.0
