"""Whether ComfyUI serves, and is warm: looked at once a second, for probes, and for who reads the log."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from comfy.client import Client
from pod.supervisor.ping_server import FAILING, SERVING, STARTING
from pod.util.serving import NOT_READY, READY

if TYPE_CHECKING:
    from worker.job import Place

_PAUSE: Final = 1.0
_PAUSE_AT_START: Final = 0.2
_LONGEST: Final = 5.0  # seconds that an answer may take: with a job in work it is slow
_MISSES: Final = 3  # in a row that make it unhealthy: one may be a moment in which it was busy


class Readiness:
    """Whether this pod's ComfyUI serves."""

    def __init__(self, place: Place, about: str) -> None:
        self._place = place
        self._about = about
        self._missed = 0
        self.warmed = True
        """Whether no warm-up is under way: until then it starts."""
        self.status = STARTING
        """STARTING, SERVING or FAILING: the status that /ping answers."""

    async def watch(self, over: asyncio.Event) -> None:
        """Look, until it is over."""
        while not over.is_set():
            self._take(serves=self.warmed and await self._serves())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE_AT_START if self.status == STARTING else _PAUSE):
                    await over.wait()

    def _take(self, *, serves: bool) -> None:
        self._missed = 0 if serves else self._missed + 1
        if serves and self.status != SERVING:
            self.status = SERVING
            print(f"{READY}, {self._about}.", flush=True)
        elif self.status == SERVING and self._missed >= _MISSES:
            self.status = FAILING
            print(f"{NOT_READY}: ComfyUI does not answer.", flush=True)

    async def _serves(self) -> bool:
        server = self._place.address()
        if not server:
            return False
        try:
            async with (
                asyncio.timeout(_LONGEST),
                Client(server, None, lambda _: None, trusted=True) as client,
            ):
                return await client.serves()
        except TimeoutError:
            return False
