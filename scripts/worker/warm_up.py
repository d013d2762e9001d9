"""A workflow that is run before the first job is taken: so that one finds models loaded and kernels ready.

Whatever goes wrong with it costs the warm-up alone, and is a line of the log.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comfy import workflow
from comfy.failure import ComfyError
from pod.util.printable import shown
from pod.util.say import say
from worker import job
from worker.errors import JobError

if TYPE_CHECKING:
    from worker.job import Place

SECONDS: Final = 360.0
"""How long it may take, with ComfyUI's start: RunPod gives a worker seven minutes until it takes jobs."""


async def run(given: str, place: Place, seconds: float = SECONDS) -> None:
    """Run a workflow, given as JSON or as the path of a file that holds it; never raises for what it is."""
    begun = time.monotonic()
    try:
        nodes = workflow.parse(await asyncio.to_thread(_read, given), "WARMUP_WORKFLOW").nodes
        async with asyncio.timeout(seconds):
            failure = " ".join(await job.rehearse(nodes, place))
    except TimeoutError:
        failure = f"it has not ended after {seconds:.0f} s"
    except (ComfyError, JobError, OSError, ValueError, RecursionError) as error:
        details = getattr(error, "details", ())
        failure = shown(" ".join((str(error), *details)), 1000)
    took = f"{time.monotonic() - begun:.1f} s"
    say(f"warm-up: failed after {took}: {failure}" if failure else f"warm-up: done in {took}.")


def _read(given: str) -> bytes:
    if given.startswith("{"):
        json.loads(given)  # its own words say where the mistake is
        return given.encode()
    return Path(given).read_bytes()
