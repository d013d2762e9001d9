"""The queue of prompts: one at a time, interrupted where ComfyUI can be, remembered in the history.

Nothing is generated: LoadImage reads, SaveImage writes a grey pixel, all else passes.
CONTRACT_PROMPT_SECONDS, CONTRACT_PROMPT_MIB: how long a prompt is in work, what it takes of memory (0).
CONTRACT_FILE_MIB: what is behind the pixel of a SaveImage (0).
CONTRACT_CACHE: anything: a node that ran with the same inputs before is not run again, and what it showed
then is shown again, as the real one does by default; here a node is known by its own inputs alone.
Source: PromptQueue and PromptExecutor in execution.py, prompt_worker in main.py of ComfyUI 0.33.0.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import struct
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

log = logging.getLogger(__name__)

_STEP = 0.02  # seconds between two looks at whether a prompt was interrupted


class InterruptedPromptError(Exception):
    """What InterruptProcessingException is there."""


@dataclass
class Prompt:
    """One prompt, as /queue lists it."""

    number: float
    prompt_id: str
    nodes: dict[str, Any]
    extra: dict[str, Any]

    @property
    def row(self) -> list[Any]:
        """The row of /queue."""
        return [self.number, self.prompt_id, self.nodes, self.extra, []]


@dataclass
class Prompts:
    """What is queued, running and done. `send` passes an event to one websocket, or to all."""

    output: Path
    send: Callable[[str, dict[str, Any], str | None], Awaitable[None]]
    pending: list[Prompt] = field(default_factory=list)
    running: Prompt | None = None
    history: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    cache: dict[str, dict[str, Any]] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def remaining(self) -> int:
        """How many are not done."""
        return len(self.pending) + (self.running is not None)

    def add(self, prompt: Prompt) -> None:
        """Queue one."""
        self.pending.append(prompt)
        self.arrived.set()

    def delete(self, prompt_ids: list[str]) -> None:
        """Take some out again."""
        self.pending = [each for each in self.pending if each.prompt_id not in prompt_ids]

    def interrupt(self, prompt_id: str | None) -> None:
        """Interrupt what runs, or one prompt if it runs."""
        if not prompt_id or (self.running and self.running.prompt_id == prompt_id):
            self.interrupted = True

    async def work(self) -> None:
        """Run prompts, one after the other, for ever."""
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            while self.pending:
                self.running = self.pending.pop(0)
                await self._run(self.running)

    async def _run(self, prompt: Prompt) -> None:
        begun, client = time.perf_counter(), prompt.extra.get("client_id")
        self.interrupted = False
        about = {"prompt_id": prompt.prompt_id, "timestamp": int(time.time() * 1000)}
        messages: list[Any] = [["execution_start", about]]
        outputs: dict[str, Any] = {}
        await self.send("execution_start", about, client)
        known: dict[str, Any] = {
            **about,
            "nodes": [number for number, node in prompt.nodes.items() if _key(node) in self.cache],
        }
        messages.append(["execution_cached", known])
        await self.send("execution_cached", known, client)
        try:
            for number, node in prompt.nodes.items():
                if number in known["nodes"]:
                    outputs |= self._remembered(number, node)
                    continue
                at = {"node": number, "display_node": number, "prompt_id": prompt.prompt_id}
                await self.send("executing", at, client)
                await self._take_time()
                outputs |= self._remembered(number, node)
            messages.append(["execution_success", about])
            await self.send("execution_success", about, client)
        except InterruptedPromptError:
            log.info("Processing interrupted")
            messages.append(["execution_interrupted", about])
            await self.send("execution_interrupted", about, client)
        except OSError as error:
            log.exception("!!! Exception during processing !!!")
            data = {**about, "exception_type": type(error).__name__, "exception_message": str(error)}
            messages.append(["execution_error", data])
            await self.send("execution_error", data, client)
        good = messages[-1][0] == "execution_success"
        status = {"status_str": "success" if good else "error", "completed": good, "messages": messages}
        self.history[prompt.prompt_id] = {"prompt": prompt.row, "outputs": outputs, "status": status}
        self.running = None
        log.info("Prompt executed in %.2f seconds", time.perf_counter() - begun)
        await self.send("executing", {"node": None, "prompt_id": prompt.prompt_id}, client)

    async def _take_time(self) -> None:
        taken = b"\1" * (int(os.environ.get("CONTRACT_PROMPT_MIB", "0")) << 20)
        log.debug("a prompt holds %d bytes", len(taken))
        end = time.monotonic() + float(os.environ.get("CONTRACT_PROMPT_SECONDS", "0"))
        while True:
            if self.interrupted:
                raise InterruptedPromptError
            if time.monotonic() >= end:
                return
            await asyncio.sleep(_STEP)

    def _remembered(self, number: str, node: dict[str, Any]) -> dict[str, Any]:
        if not os.environ.get("CONTRACT_CACHE"):
            return self._execute(number, node)
        if _key(node) not in self.cache:
            self.cache[_key(node)] = self._execute(number, node).get(number, {})
        shown = self.cache[_key(node)]
        return {number: shown} if shown else {}

    def _execute(self, number: str, node: dict[str, Any]) -> dict[str, Any]:
        if node["class_type"] != "SaveImage":
            return {}
        prefix = str(node["inputs"].get("filename_prefix", "ComfyUI"))
        folder = (self.output / prefix).parent
        folder.mkdir(parents=True, exist_ok=True)
        there = 0
        with contextlib.suppress(OSError):
            there = len(list(folder.glob(f"{(self.output / prefix).name}_*.png")))
        path = folder / f"{(self.output / prefix).name}_{there + 1:05}_.png"
        path.write_bytes(pixel() + bytes(int(os.environ.get("CONTRACT_FILE_MIB", "0")) << 20))
        subfolder = "" if folder == self.output else str(folder.relative_to(self.output))
        return {number: {"images": [{"filename": path.name, "subfolder": subfolder, "type": "output"}]}}


def _key(node: dict[str, Any]) -> str:
    return json.dumps([node.get("class_type"), node.get("inputs")], sort_keys=True)


def pixel() -> bytes:
    """Return a PNG of one grey pixel (https://www.w3.org/TR/png-3/)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0\x80"))
        + chunk(b"IEND", b"")
    )
