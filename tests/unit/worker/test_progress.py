"""Progress: what is said of a prompt, how often, and in which order."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from comfy.answers import Event
from worker.progress import Percent, Reporter

NODES = ["1", "2", "3", "4"]


def executing(node: str | None) -> Event:
    return Event("executing", {"node": node})


def test_each_node_counts_alike_and_the_percentage_never_falls() -> None:
    percent = Percent(NODES)
    events = [
        Event("execution_cached", {"nodes": ["1"]}),
        executing("2"),
        Event("progress", {"node": "2", "value": 5, "max": 10}),
        Event("progress", {"node": "2", "value": 1, "max": 10}),
        executing("3"),
        Event("progress_state", {"nodes": {"3": {"state": "finished"}, "4": {"state": "running"}}}),
        executing("4"),
        executing(None),
    ]
    told = [message for event in events if (message := percent.note(event))]
    assert [(each["node"], each["percent"]) for each in told] == [
        ("2", 25),
        ("2", 37),
        ("2", 37),
        ("3", 50),
        ("4", 75),
    ]
    assert told[1] == {"type": "progress", "percent": 37, "node": "2", "value": 5, "max": 10}


def test_odd_events_cost_nothing() -> None:
    percent = Percent(NODES)
    odd: list[dict[str, Any]] = [
        {},
        {"node": 5},
        {"node": "9", "value": "x", "max": 0},
        {"nodes": 5},
        {"nodes": [{}]},
    ]
    for kind in ("execution_cached", "executing", "progress", "progress_state", "status"):
        for data in odd:
            message = percent.note(Event(kind, data))
            assert message is None or message["percent"] == 0


def report(messages: int, interval: float, takes: float = 0.0) -> list[int]:
    """Tell so many messages, one every 10 ms; returns those that were sent."""
    sent: list[int] = []

    async def send(message: dict[str, Any]) -> None:
        await asyncio.sleep(takes)
        sent.append(message["n"])
        if len(sent) == 1:
            raise RuntimeError("the platform is away")

    async def work() -> None:
        async with Reporter(send, interval) as reporter:
            for number in range(messages):
                reporter.tell({"n": number})
                await asyncio.sleep(0.01)
        before = list(sent)
        await asyncio.sleep(3 * takes)
        assert sent == before, "a message behind the result"

    asyncio.run(work())
    return sent


def test_messages_come_in_order_and_the_newest_at_each_turn() -> None:
    begun = time.monotonic()
    sent = report(50, interval=0.1)
    assert 2 <= len(sent) <= (time.monotonic() - begun) / 0.1 + 1
    assert sent == sorted(sent)


def test_a_slow_platform_is_waited_for_and_one_that_fails_is_borne() -> None:
    sent = report(20, interval=0.0, takes=0.05)
    assert len(sent) > 1
    assert sent == sorted(sent)
