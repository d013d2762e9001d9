"""The edge to RunPod: the runpod SDK takes jobs and returns answers. It is imported here alone.

Source: runpod 1.12.0 (worker.py, rp_scale.py, rp_job.py, rp_http.py, rp_fitness.py), whose progress_update
starts a thread a message, so that they overtake each other and the job's own result; here each is awaited.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from pod.errors import UNFIT, PodError
from worker import job
from worker.handler import CRASHED, log

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from worker.handler import Worker

# What the SDK looks at before the first job, with os._exit(1) where it does not like it: TCP to 8.8.8.8,
# which many networks do not let through; 10 % of the disk, which an image with models may not have; a
# benchmark in each cold start. Whether ComfyUI can work on this machine start.sh has found out before.
_CHECKS: Final = ("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "RUNPOD_SKIP_GPU_CHECK")


def serve(worker: Worker, environ: MutableMapping[str, str] = os.environ) -> None:
    """Take jobs until SIGTERM; without a platform, the SDK's test input. Raises PodError without the SDK."""
    for name in _CHECKS:
        environ.setdefault(name, "true")
    try:
        serverless = import_module("runpod").serverless
        http = import_module("runpod.serverless.modules.rp_http")
        client = import_module("runpod.http_client")
    except ImportError as missing:
        raise PodError(
            f"The runpod SDK cannot be imported ({missing}): install runpod>=1.10.1 into /opt/venv.", UNFIT
        ) from None

    async def send(given: dict[str, Any], body: dict[str, Any]) -> None:
        async with client.AsyncClientSession() as session:
            await http.send_result(session, body, given)

    async def progress(given: dict[str, Any], message: dict[str, Any]) -> None:
        await send(given, {"status": "IN_PROGRESS", "output": message})

    async def fail_what_was_left() -> None:
        for number, prompt_id in worker.open_jobs.left().items():
            log(number, "left open")
            if prompt_id:  # or the next job waits until ComfyUI is done with it
                await job.drop(worker.place, prompt_id)
            await send({"id": number}, {"error": CRASHED})
        worker.open_jobs.forget()

    if environ.get("RUNPOD_WEBHOOK_GET_JOB"):
        asyncio.run(fail_what_was_left())
        worker = replace(worker, send=progress)
    serverless.start({"handler": worker.handle})
