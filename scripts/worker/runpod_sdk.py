"""The edge to RunPod: the runpod SDK takes jobs and returns answers. It is imported here alone.

Source: runpod 1.12.0 (worker.py, rp_scale.py, rp_job.py, rp_http.py, rp_fitness.py), whose progress_update
starts a thread a message, so that they overtake each other and the job's own result; here each is awaited.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pod.errors import UNFIT, PodError
from pod.util.printable import shown
from worker import fitness, job, warm_up
from worker.handler import CRASHED, log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping

    from worker.handler import Worker
    from worker.job_file import JobFile

# What the SDK looks at before the first job, with os._exit(1) where it does not like it: TCP to 8.8.8.8,
# which many networks do not let through; 10 % of the disk, which an image with models may not have; a
# benchmark in each cold start. Whether ComfyUI can work on this machine start.sh has found out before: that
# is the one check here (worker/fitness.py).
_CHECKS: Final = ("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "RUNPOD_SKIP_GPU_CHECK")
SDK: Final = Path("/opt/runpod")
"""Where an image has the SDK (templates/dockerfile/serving.j2)."""
_OLDEST: Final = (1, 10, 1)  # older ones stop taking jobs where there is a network volume
_REMEDY: Final = "build an image with `serve: runpod` in its variant (docs/how-to/serverless-endpoint.md)."


@dataclass(frozen=True)
class Platform:
    """The SDK, and its modules that send what a job's handler does not."""

    sdk: Any
    http: Any
    client: Any

    async def send(self, given: dict[str, Any], body: dict[str, Any]) -> None:
        """Send the platform something of a job."""
        async with self.client.AsyncClientSession() as session:
            await self.http.send_result(session, body, given)

    async def progress(self, given: dict[str, Any], message: dict[str, Any]) -> None:
        """Send how far a job is."""
        await self.send(given, {"status": "IN_PROGRESS", "output": message})

    def start(
        self, handle: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]], concurrency: int = 1
    ) -> None:
        """Take jobs until SIGTERM; without a platform, the SDK's test input."""
        self.sdk.serverless.start({"handler": handle, "concurrency_modifier": lambda _current: concurrency})


def connected(environ: MutableMapping[str, str] = os.environ) -> Platform:
    """Return the platform; sets what its SDK reads of the environment. Raises PodError without the SDK."""
    for name in _CHECKS:
        environ.setdefault(name, "true")
    if not environ.get("RUNPOD_LOG_LEVEL") and not environ.get("RUNPOD_DEBUG_LEVEL"):
        environ["RUNPOD_LOG_LEVEL"] = "INFO"  # its default, DEBUG, logs each result, base64 and all
    return Platform(*_imported())


def serve(worker: Worker, environ: MutableMapping[str, str] = os.environ) -> None:
    """Take jobs until SIGTERM; without a platform, the SDK's test input. Raises PodError without the SDK."""
    platform = connected(environ)
    platform.sdk.serverless.register_fitness_check(_fitness_check(worker, environ))
    left = worker.open_jobs.claim()  # by hand, too: a job of such a worker is noted as well
    if environ.get("RUNPOD_WEBHOOK_GET_JOB"):
        asyncio.run(_fail_what_was_left(worker, left, platform.send))
        worker = replace(worker, send=platform.progress)
    if worker.warm_up and not fitness.problem(worker.place.run, environ):
        asyncio.run(warm_up.run(worker.warm_up, worker.place))
    platform.start(worker.handle, worker.concurrency)


async def fail_left(
    left: Iterable[str],
    open_jobs: JobFile,
    send: Callable[[dict[str, Any], dict[str, Any]], Awaitable[None]],
) -> None:
    """Tell the platform of jobs that an earlier worker, which was killed, left open."""
    for number in left:
        log(number, "left open")
        try:
            await send({"id": number}, {"error": CRASHED})
        except Exception as error:  # noqa: BLE001 - of the SDK, which logs most of them and raises none
            log(number, "not reported", error=f"{type(error).__name__}: {shown(error)}")
        else:
            open_jobs.end(number)


async def _fail_what_was_left(
    worker: Worker, left: dict[str, str], send: Callable[[dict[str, Any], dict[str, Any]], Awaitable[None]]
) -> None:
    for number, prompt_id in left.items():
        if prompt_id:  # or the next job waits until ComfyUI is done with it
            await job.drop(worker.place, prompt_id)
        await fail_left([number], worker.open_jobs, send)


def _fitness_check(worker: Worker, environ: Mapping[str, str]) -> Callable[[], None]:
    """Return our check for the SDK, which tells the platform its name."""

    def comfyui_can_work_here() -> None:
        if reason := fitness.problem(worker.place.run, environ):
            raise RuntimeError(reason)

    return comfyui_can_work_here


def _imported() -> tuple[Any, Any, Any]:
    """Return the SDK, and its modules that send what a job's handler does not. Raises PodError."""
    # Before the packages of ComfyUI and its nodes, of which the SDK may want other versions.
    sys.path[:0] = [str(each) for each in SDK.glob("lib/python3*/site-packages")]
    try:
        sdk = import_module("runpod")
        http = import_module("runpod.serverless.modules.rp_http")
        client = import_module("runpod.http_client")
    except ImportError as missing:
        raise PodError(f"The runpod SDK cannot be imported ({missing}): {_REMEDY}", UNFIT) from None
    if _is_old(str(sdk.__version__)):
        raise PodError(f"The runpod SDK is {shown(sdk.__version__, 40)}, which is too old: {_REMEDY}", UNFIT)
    return sdk, http, client


def _is_old(version: str) -> bool:
    """Tell whether a release is older than those that can be used; one that says no numbers is not."""
    numbers = tuple(int(each) for each in re.findall(r"\d+", version)[: len(_OLDEST)])
    return bool(numbers) and numbers < _OLDEST
