"""OpenAI's videos, which are jobs that are asked for later, and vLLM-Omni's sound, which is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pod.util import bounded_json
from server.api import own
from server.api.refusals import ApiError
from server.api.submission import CANCELLED
from server.requests import lengths, openai
from worker import job_record
from worker.http_api import raw
from worker.job_record import encoded

if TYPE_CHECKING:
    from aiohttp import web

    from server.api.served import Served
    from server.api.submission import Submission
    from server.generation.request import ModelInfo
    from server.jobs.record import Job
    from server.requests.draft import Draft
    from server.requests.form import Form
    from server.requests.openai import Asked
    from worker.serve_settings import Settings

_VIDEO: Final = "video"  # what the route remembers of its jobs
_STATES: Final = {
    job_record.IN_QUEUE: "queued",
    job_record.IN_PROGRESS: "in_progress",
    job_record.COMPLETED: "completed",
}
_MOST_LISTED: Final = 100


class Videos:
    """Answers OpenAI's routes of videos, and sound."""

    def __init__(self, settings: Settings, served: Served, submission: Submission) -> None:
        self._settings = settings
        self._served = served
        self._submission = submission

    async def create(self, request: web.BaseRequest) -> web.StreamResponse:
        """Let a video wait for its turn."""
        asked: list[Asked] = []

        def read(form: Form, info: ModelInfo) -> Draft:
            asked.append(openai.videos(form, info))
            return asked[0].draft

        def about() -> dict[str, Any]:
            return {_VIDEO: True, "prompt": asked[0].prompt, "size": asked[0].size}

        job = await self._submission.job(request, read, about)
        model = self._submission.model()
        if job.generation:
            schema = model.schema(job.generation.task)
            seconds = lengths.said(schema, job.generation.parameters)
            job.about["seconds"] = f"{seconds or 0:.2f}".rstrip("0").rstrip(".")
            job.about["size"] = _size(asked[0], schema, job.generation.parameters)
        return raw(encoded(self._view(job)))

    async def list(self, request: web.BaseRequest) -> web.StreamResponse:
        """List videos, the newest first."""
        jobs = [each for each in self._served.queue.all() if _VIDEO in each.about]
        order, limit = request.query.get("order", "desc"), request.query.get("limit", "20")
        if order not in ("asc", "desc"):
            raise ApiError(400, "order is neither asc nor desc.", "order")
        if not 1 <= (bounded_json.number(limit) or 0) <= _MOST_LISTED:
            raise ApiError(400, f"limit is not a number from 1 to {_MOST_LISTED}.", "limit")
        if order == "asc":
            jobs.reverse()
        ids = [each.id for each in jobs]
        if (after := request.query.get("after")) is not None:
            jobs = jobs[ids.index(after) + 1 :] if after in ids else []
        shown = jobs[: int(limit)]
        ends = {"first_id": shown[0].id, "last_id": shown[-1].id} if shown else {}
        data = [self._view(each) for each in shown]
        said = {"object": "list", "data": data, "has_more": len(jobs) > len(shown), **ends}
        return raw(encoded(said))

    async def retrieve(self, _request: web.BaseRequest, number: str) -> web.StreamResponse:
        """Tell how a video is."""
        return raw(encoded(self._view(self._found(number))))

    async def content(self, request: web.BaseRequest, number: str) -> web.StreamResponse:
        """Return the video itself."""
        job = self._found(number)
        if request.query.get("variant", _VIDEO) != _VIDEO:
            raise ApiError(400, "Only the variant video is made here.", "variant")
        if job.result is None:
            raise ApiError(400, f"The video is not there: it is {_state(job)}.", "video_id", "not_ready")
        return own.file(0, job.result.outputs[0])

    async def delete(self, _request: web.BaseRequest, number: str) -> web.StreamResponse:
        """End a video that is being made, and forget it."""
        job = self._found(number)
        self._served.queue.cancel(job)
        self._served.queue.forget(job.id)
        return raw(encoded({"id": job.id, "object": "video.deleted", "deleted": True}))

    async def audio(self, request: web.BaseRequest) -> web.StreamResponse:
        """Generate sound, and answer with the file."""

        def read(form: Form, info: ModelInfo) -> Draft:
            return openai.audio(form, info).draft

        job = await self._submission.job(request, read)
        made = (await self._submission.result(job)).outputs[0]
        self._submission.forget(job)
        return own.file(0, made)

    def _found(self, number: str) -> Job:
        job = self._served.queue.find(number)
        if job is None or _VIDEO not in job.about:
            raise ApiError(404, "There is no such video, or it is no longer kept.", "video_id")
        return job

    def _view(self, job: Job) -> dict[str, Any]:
        done = job.result is not None
        said: dict[str, Any] = {
            "id": job.id,
            "object": "video",
            "model": self._submission.model().info.id,
            "status": _state(job),
            "progress": 100 if done else 0 if job.over else job.percent,
            "created_at": job.created,
            "completed_at": job.completed or None if done else None,
            "expires_at": job.completed + int(self._settings.keep_seconds) if done else None,
            "prompt": job.about["prompt"],
            "seconds": job.about.get("seconds", "0"),
            "size": job.about["size"],
            "error": None,
        }
        if done and job.result:
            said["seed"] = job.result.outputs[0].seed
        if job.over and not done:
            failure = job.failure
            message = failure.message if failure else CANCELLED
            said["error"] = {"code": (failure and failure.code) or job.status.lower(), "message": message}
        return said


def _state(job: Job) -> str:
    return _STATES.get(job.status, "failed")


def _size(asked: Asked, schema: Any, values: Any) -> str:
    found = []
    for name in ("width", "height"):
        parameter = schema.parameter(name)
        found.append(values.get(name, parameter.default if parameter else None))
    return f"{found[0]}x{found[1]}" if all(isinstance(each, int) for each in found) else asked.size
