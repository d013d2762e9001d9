"""podkiln's own routes: POST /generate with the pipeline's parameters, jobs, what they made, the schema."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from server.api import views
from server.api.refusals import ApiError
from server.jobs import answer
from server.requests import plain
from worker import event_stream
from worker.http_api import headers, raw
from worker.job_record import encoded

if TYPE_CHECKING:
    from server.api.served import Served
    from server.api.submission import Submission
    from server.api.views import Views
    from server.generation.request import ModelInfo
    from server.jobs.record import Job
    from server.requests.draft import Draft

EVENTS: Final = "text/event-stream"
NO_JOB: Final = "There is no such job, or what came of it is no longer kept."
_FILES: Final = ("image/", "video/", "audio/")
_OUTPUT_POLICY: Final = "default-src 'none'; sandbox"


class Own:
    """Answers podkiln's own routes."""

    def __init__(self, served: Served, submission: Submission, views_: Views) -> None:
        self._served = served
        self._submission = submission
        self._views = views_

    async def generate(self, request: web.BaseRequest) -> web.StreamResponse:
        """Generate, and answer at the end, with events, or at once."""
        follows = EVENTS in request.headers.get("Accept", "")
        later = "async" in request.query or "respond-async" in request.headers.get("Prefer", "").lower()

        def change(draft: Draft) -> None:
            draft.previews = draft.previews and (follows or later)

        job = await self._submission.job(request, plain.read, change=change)
        if later:
            return raw(encoded(self._view(job, request)), 202)
        if follows:
            return await self._followed(request, job)
        result = await self._submission.result(job)
        if request.headers.get("Accept", "").startswith(_FILES):
            self._submission.forget(job)
            return file(0, result.outputs[0])
        said = self._view(job, request)
        if self._views.fits(job):
            self._submission.forget(job)
        return raw(encoded(said))

    async def job(self, request: web.BaseRequest, number: str) -> web.StreamResponse:
        """Tell how a job is, or follow it."""
        job = self.found(number)
        if EVENTS in request.headers.get("Accept", ""):
            return await self._follow(request, job)
        return raw(encoded(self._view(job, request)))

    async def cancel(self, request: web.BaseRequest, number: str) -> web.StreamResponse:
        """End a job."""
        job = self.found(number)
        self._served.queue.cancel(job)
        return raw(encoded(self._view(job, request)))

    async def output(self, _request: web.BaseRequest, number: str, which: str) -> web.StreamResponse:
        """Return a file that a job made: whoever knows the job's id may have it."""
        job = self.found(number)
        outputs = job.result.outputs if job.result else ()
        if not (which.isascii() and which.isdigit() and len(which) < 4 and int(which) < len(outputs)):  # noqa: PLR2004
            raise ApiError(404, "The job has made no such file.")
        return file(int(which), outputs[int(which)])

    async def schema(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return what the model is, and the JSON Schema of each of its tasks, or of one."""
        model = self._submission.model()
        task = request.query.get("task")
        if task is None:
            tasks = {each: model.schema(each).to_json_schema() for each in model.info.tasks}
            return raw(encoded({"model": described(model.info), "tasks": tasks}))
        if task not in model.info.tasks:
            raise ApiError(404, f"This model does {', '.join(model.info.tasks)}.", "task")
        return raw(encoded(model.schema(task).to_json_schema()))

    def found(self, number: str) -> Job:
        """Return a job. Raises ApiError."""
        job = self._served.queue.find(number)
        if job is None:
            raise ApiError(404, NO_JOB)
        return job

    def _view(self, job: Job, request: web.BaseRequest) -> dict[str, Any]:
        return self._views.job(job, self._submission.model().info, request)

    async def _followed(self, request: web.BaseRequest, job: Job) -> web.StreamResponse:
        """Follow a job that nobody else knows: it ends when its client goes."""
        try:
            found = await self._follow(request, job)
        except BaseException:
            self._served.queue.cancel(job)
            raise
        if self._views.fits(job):
            self._submission.forget(job)
        return found

    async def _follow(self, request: web.BaseRequest, job: Job) -> web.StreamResponse:
        """Send events: `status` with its place, `progress` with how far it is, and `result` at its end."""
        sent = await event_stream.begun(request)
        told: Any = None
        shown: bytes | None = None
        while not job.over:
            changed = job.changed
            state = (
                ("progress", views.progress(job)) if job.progress else ("status", self._view(job, request))
            )
            if state != told or job.preview is not shown:
                said = {**state[1], **(views.preview(job) if job.preview is not shown else {})}
                await event_stream.send(request, sent, event_stream.event(state[0], encoded(said)))
                told, shown = state, job.preview
            if not job.over:
                await event_stream.wait(request, sent, changed)
        last = encoded(self._view(job, request))
        await event_stream.send(request, sent, event_stream.event("result", last))
        return sent


def file(number: int, output: Any) -> web.Response:
    """Return a file that was made."""
    about = {
        "Content-Disposition": f'inline; filename="{answer.filename(number, output)}"',
        "Content-Security-Policy": _OUTPUT_POLICY,
        "X-Seed": str(output.seed),
    }
    return web.Response(body=output.content, content_type=output.mime, headers={**headers(), **about})


def described(info: ModelInfo) -> dict[str, Any]:
    """Return what the model is."""
    return asdict(info)
