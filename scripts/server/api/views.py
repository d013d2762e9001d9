"""Jobs as clients of podkiln's own routes see them, with the names of the serverless worker. Pure."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, Final

from server.jobs import answer

if TYPE_CHECKING:
    from aiohttp import web

    from server.generation.request import ModelInfo, Output
    from server.jobs.queue import Queue
    from server.jobs.record import Job

_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")


class Views:
    """Says how jobs are. `most`: bytes of an answer; what is larger stands in it by its address."""

    def __init__(self, queue: Queue, most: int) -> None:
        self._queue = queue
        self._most = most

    def job(self, job: Job, info: ModelInfo, request: web.BaseRequest) -> dict[str, Any]:
        """Return a job as it is now."""
        said: dict[str, Any] = {"id": job.id, "status": job.status, "created": job.created}
        if position := self._queue.position(job):
            said["position"] = position
        if job.begun is not None:
            said["delayTime"] = round(1000 * (job.begun - job.submitted))
        if job.begun is not None and job.ended is not None:
            said["executionTime"] = round(1000 * (job.ended - job.begun))
        if job.progress:
            said["progress"] = progress(job)
        if job.result:
            large = answer.encoded_size(job.result) > self._most

            def linked(number: int, _: Output) -> tuple[str, str]:
                return answer.URL, address(request, job, number)

            said["output"] = answer.output(job.result, info, linked if large else answer.inline)
        if job.failure:
            said["error"] = job.failure.message
        return said

    def fits(self, job: Job) -> bool:
        """Tell whether what came of a job can stand in its answer."""
        return job.result is None or answer.encoded_size(job.result) <= self._most


def progress(job: Job) -> dict[str, Any]:
    """Return how far a job is."""
    done = job.progress
    return {"step": done.step if done else 0, "steps": done.steps if done else 0, "percent": job.percent}


def preview(job: Job) -> dict[str, str]:
    """Return the newest small picture, a JPEG, where there is one."""
    if job.preview is None:
        return {}
    return {"preview": f"data:image/jpeg;base64,{base64.b64encode(job.preview).decode()}"}


def address(request: web.BaseRequest, job: Job, number: int) -> str:
    """Return where an output can be fetched, by the name that the client has for this server."""
    path = f"/jobs/{job.id}/outputs/{number}"
    host = request.headers.get("Host", "")
    if not _HOST.fullmatch(host):
        return path
    forwarded = request.headers.get("X-Forwarded-Proto", "").lower()
    return f"{'https' if forwarded == 'https' else request.scheme}://{host}{path}"
