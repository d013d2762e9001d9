"""How far a job is, for its client: read off ComfyUI's events, and passed on in order and not too often."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType

    from comfy.answers import Event

INTERVAL: Final = 1.0  # seconds between two messages: each is a request to the platform
_LAST_WORDS: Final = 5.0  # seconds that the message on its way may take when a job ends
_FINISHED: Final = "finished"  # NodeState of comfy_execution/progress.py


class Percent:
    """How much of a workflow is done: each node counts as much as any other. Never less than before. Pure."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self._done = dict.fromkeys(nodes, 0.0)
        self._node: str | None = None
        self._percent = 0

    def note(self, event: Event) -> dict[str, Any] | None:
        """Take an event; returns what there is to tell a client, or None."""
        value, most = 0.0, 1.0
        if event.kind == "execution_cached":
            for each in _strings(event.data.get("nodes")):
                self._finish(each)
            return None
        if event.kind == "progress_state":
            self._states(event.data.get("nodes"))
            return None
        if event.kind == "executing" and event.node:
            self._finish(self._node)
            self._node = event.node
        elif event.kind == "progress" and event.node:
            value, most = _number(event.data.get("value")), _number(event.data.get("max")) or 1.0
            self._advance(event.node, value / most)
        else:
            return None
        return self._message(event.node, value, most)

    def _message(self, node: str | None, value: float, most: float) -> dict[str, Any]:
        part = sum(self._done.values()) / max(1, len(self._done))
        self._percent = max(self._percent, min(100, int(100 * part)))
        return {"type": "progress", "percent": self._percent, "node": node, "value": value, "max": most}

    def _states(self, nodes: Any) -> None:
        for number, state in nodes.items() if isinstance(nodes, dict) else ():
            if isinstance(state, dict) and state.get("state") == _FINISHED:
                self._finish(number)

    def _finish(self, node: str | None) -> None:
        self._advance(node, 1.0)

    def _advance(self, node: str | None, part: float) -> None:
        if node in self._done:
            self._done[node] = max(self._done[node], min(1.0, part))


class Reporter:
    """Sends messages one after the other, at each turn the newest. Use it as an async context manager.

    Args:
        send: Sends one. What it raises is lost with the message: a job does not fail for its progress.
        interval: Seconds between two.
    """

    def __init__(self, send: Callable[[dict[str, Any]], Awaitable[None]], interval: float = INTERVAL) -> None:
        self._send = send
        self._interval = interval
        self._latest: dict[str, Any] | None = None
        self._news = asyncio.Event()
        self._sending = asyncio.Lock()

    def tell(self, message: dict[str, Any]) -> None:
        """Put a message in the place of one that has not been sent yet."""
        self._latest = message
        self._news.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End: nothing is sent behind this, so that no message comes after the job's result."""
        try:
            async with asyncio.timeout(_LAST_WORDS), self._sending:
                pass
        except TimeoutError:
            pass
        finally:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            await self._news.wait()
            async with self._sending:
                self._news.clear()
                message = self._latest
                if message is not None:
                    with contextlib.suppress(Exception):
                        await self._send(message)
            await asyncio.sleep(self._interval)


def _strings(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
