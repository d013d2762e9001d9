"""The requests of the model's server, one by one: who may ask, what answers, and how errors are said."""

from __future__ import annotations

import asyncio
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Final

from aiohttp import web

from pod.services import ping_config
from server.api import openapi, refusals
from server.api.images import Images
from server.api.own import Own
from server.api.probes import Probes
from server.api.routes import matched
from server.api.submission import Submission
from server.api.videos import Videos
from server.api.views import Views
from server.jobs.queue import BUG
from worker.handler import log
from worker.http_api import headers, raw, send
from worker.http_errors import HttpError
from worker.job_record import encoded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from server.api.served import Served
    from worker.http_access import Access
    from worker.serve_settings import Settings

_AROUND: Final = 10_000  # bytes of JSON around what came out
_DOCS_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


class Api:
    """Answers requests; call it with one. It never raises, but where the client has gone.

    Args:
        settings: The limits.
        served: The model and its queue.
        access: Whom it lets in.
        private: Whether addresses of files may be of hosts that are not public.
    """

    def __init__(self, settings: Settings, served: Served, access: Access, *, private: bool = False) -> None:
        self._settings = settings
        self._served = served
        self._access = access
        submission = Submission(settings, served, private=private)
        own = Own(served, submission, Views(served.queue, settings.response_bytes - _AROUND))
        videos = Videos(settings, served, submission)
        self._probes = probes = Probes(settings, served, submission)
        self._answers: dict[str, Callable[..., Awaitable[web.StreamResponse]]] = {
            "page": self._page,
            "images": Images(served, submission, Views(served.queue, settings.response_bytes - _AROUND)),
            "create_video": videos.create,
            "list_videos": videos.list,
            "video": videos.retrieve,
            "delete_video": videos.delete,
            "video_content": videos.content,
            "audio": videos.audio,
            "models": probes.models,
            "model": probes.model,
            "generate": own.generate,
            "job": own.job,
            "cancel": own.cancel,
            "output": own.output,
            "schema": own.schema,
            "openapi": self._openapi,
            "docs": self._docs,
            "ping": probes.ping,
            "health": probes.health,
            "ready": probes.ready,
            "metrics": probes.metrics,
        }

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        return await self._answered(request, self._answer)

    async def probe(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request at the port of probes, where there is nothing else."""
        return await self._answered(request, self._answer_probe)

    async def _answered(
        self,
        request: web.BaseRequest,
        answers: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        try:
            answer = await answers(request)
        except HttpError as error:
            answer = refusals.answer(request.path, error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as bug:  # noqa: BLE001 - whatever it is, its traceback is not the client's
            log("", "bug", traceback="".join(traceback.format_exception(bug)))
            if request.writer.output_size > 0:  # events have been sent: a second answer cannot be
                raise ConnectionError from None
            answer = refusals.answer(request.path, HttpError(500, BUG))
        if not request.content.is_eof():
            answer.force_close()  # the rest of the body is not waited for
        await send(request, answer)
        return answer

    async def _answer_probe(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path not in (self._settings.health_path, ping_config.PATH):
            raise HttpError(404, f"Only {self._settings.health_path} is answered at this port.")
        return await self._probes.ping(request)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method in ("GET", "HEAD") and request.path == self._settings.health_path:
            return await self._probes.ping(request)
        path = request.path.rstrip("/") or "/"
        found = matched(request.method, path)
        if isinstance(found, list):
            if not found:
                raise HttpError(404, "There is no such address here: /docs shows which there are.")
            said = ", ".join(found)
            raise HttpError(405, f"This address is asked with {said}.", headers={"Allow": said})
        route, words = found
        if not route.is_open:
            self._access.check(request)
        return await self._answers[route.name](request, *words)

    async def _page(self, _request: web.BaseRequest) -> web.StreamResponse:
        shown = import_module("server.page")  # whose text nobody else needs
        return _html(str(shown.page()), str(shown.policy()))

    async def _openapi(self, _request: web.BaseRequest) -> web.StreamResponse:
        return raw(encoded(openapi.document(self._served.model)))

    async def _docs(self, _request: web.BaseRequest) -> web.StreamResponse:
        return _html(openapi.page(), _DOCS_POLICY)


def _html(text: str, policy: str) -> web.Response:
    return web.Response(
        text=text, content_type="text/html", headers={**headers(), "Content-Security-Policy": policy}
    )
