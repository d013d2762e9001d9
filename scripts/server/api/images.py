"""OpenAI's images: POST /v1/images/generations and /v1/images/edits, whole or as events."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from server.api import refusals, views
from server.api.refusals import ApiError
from server.api.submission import CANCELLED
from server.requests import openai
from worker import event_stream
from worker.http_api import raw
from worker.job_record import encoded

if TYPE_CHECKING:
    from aiohttp import web

    from server.api.served import Served
    from server.api.submission import Submission
    from server.api.views import Views
    from server.generation.request import ModelInfo, Output
    from server.jobs.record import Job
    from server.requests.draft import Draft
    from server.requests.form import Form
    from server.requests.openai import Asked

_NO_USAGE: Final = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""Nothing here counts tokens; the clients' types want the numbers."""


class Images:
    """Answers OpenAI's routes of images."""

    def __init__(self, served: Served, submission: Submission, views_: Views) -> None:
        self._served = served
        self._submission = submission
        self._views = views_

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Generate or edit."""
        asked: list[Asked] = []

        def read(form: Form, info: ModelInfo) -> Draft:
            asked.append(openai.ROUTES[request.path.rstrip("/")](form, info))
            return asked[0].draft

        job = await self._submission.job(request, read)
        if asked[0].stream:
            return await self._streamed(request, job, asked[0])
        outputs = (await self._submission.result(job)).outputs
        if not asked[0].by_url:
            self._submission.forget(job)
        if not asked[0].by_url and not self._views.fits(job):
            raise ApiError(
                400,
                "The pictures are larger than an answer may be here: ask for fewer or smaller ones, or for "
                "response_format url.",
                "response_format",
            )
        data = [self._entry(request, job, number, each, asked[0]) for number, each in enumerate(outputs)]
        said = {"created": job.completed, "data": data, **_about(outputs[0], asked[0])}
        return raw(encoded(said))

    @staticmethod
    def _entry(
        request: web.BaseRequest, job: Job, number: int, output: Output, asked: Asked
    ) -> dict[str, Any]:
        if asked.by_url:
            return {"url": views.address(request, job, number), "seed": output.seed}
        return {"b64_json": base64.b64encode(output.content).decode(), "seed": output.seed}

    async def _streamed(self, request: web.BaseRequest, job: Job, asked: Asked) -> web.StreamResponse:
        try:
            sent = await event_stream.begun(request)
            await self._follow(request, sent, job, asked)
        except BaseException:
            self._served.queue.cancel(job)
            raise
        self._submission.forget(job)
        return sent

    async def _follow(
        self, request: web.BaseRequest, sent: web.StreamResponse, job: Job, asked: Asked
    ) -> None:
        """Send the pictures on the way, as many as are asked for, evenly spread, and then the last."""
        kind = "image_edit" if asked.edits else "image_generation"
        index = 0
        while not job.over:
            changed = job.changed
            due = job.percent >= 100 * (index + 1) / (asked.partial + 1)
            if index < asked.partial and due and job.preview is not None:
                part = {
                    "b64_json": base64.b64encode(job.preview).decode(),
                    "partial_image_index": index,
                    "created_at": job.created,
                    "size": asked.size,
                    "quality": "auto",
                    "background": "opaque",
                    "output_format": "jpeg",
                }
                job.preview = None
                index += 1
                await _send(request, sent, f"{kind}.partial_image", part)
            if not job.over:
                await event_stream.wait(request, sent, changed)
        if job.result is None:
            error = refusals.of_failure(job.failure) if job.failure else ApiError(409, CANCELLED)
            said = refusals.body(request.path, error)
            await event_stream.send(request, sent, event_stream.event("error", said))
            return
        last = job.result.outputs[0]
        about = {"quality": "auto", **_about(last, asked), "seed": last.seed, "usage": _NO_USAGE}
        content = base64.b64encode(last.content).decode()
        await _send(
            request, sent, f"{kind}.completed", {"b64_json": content, "created_at": job.completed, **about}
        )


def _about(output: Output, asked: Asked) -> dict[str, Any]:
    size = f"{output.width}x{output.height}" if output.width else asked.size
    return {"size": size, "output_format": asked.draft.image_format, "background": "opaque"}


async def _send(request: web.BaseRequest, sent: web.StreamResponse, kind: str, said: dict[str, Any]) -> None:
    await event_stream.send(request, sent, event_stream.event(kind, encoded({"type": kind, **said})))
