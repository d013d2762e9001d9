"""What probes, monitors and OpenAI's list of models are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from aiohttp import web

from server.api import metrics
from server.api.own import described
from server.api.refusals import ApiError
from server.api.served import READY
from server.requests import openai
from server.requests.errors import NO_MODEL, FieldError
from worker.http_api import headers, raw
from worker.job_record import encoded

if TYPE_CHECKING:
    from server.api.served import Served
    from server.api.submission import Submission
    from worker.serve_settings import Settings

_METRICS: Final = "text/plain"


class Probes:
    """Answers probes."""

    def __init__(self, settings: Settings, served: Served, submission: Submission) -> None:
        self._settings = settings
        self._served = served
        self._submission = submission

    async def ping(self, _request: web.BaseRequest) -> web.StreamResponse:
        """Tell a load balancer how the model is."""
        return web.Response(status=self._served.status, headers=headers())

    async def health(self, _request: web.BaseRequest) -> web.StreamResponse:
        """Tell how the model and its queue are."""
        served, queue = self._served, self._served.queue
        said: dict[str, Any] = {
            "status": served.state,
            "phase": "" if served.model else served.phase,
            "model": described(served.model.info) if served.model else None,
            "queue": {
                "waiting": queue.waiting,
                "running": int(queue.running),
                "limit": self._settings.queue,
            },
            "jobs": dict(queue.counters.outcomes),
        }
        return raw(encoded(said))

    async def ready(self, _request: web.BaseRequest) -> web.StreamResponse:
        """Tell a probe whether a job would be taken."""
        self._submission.model()
        self._submission.check_room()
        if self._served.state != READY:
            raise ApiError(503, "The model does not answer.")
        return raw(encoded({"status": "ready"}))

    async def metrics(self, _request: web.BaseRequest) -> web.StreamResponse:
        """Return the figures for Prometheus."""
        return web.Response(text=metrics.text(self._served), content_type=_METRICS, headers=headers())

    async def models(self, _request: web.BaseRequest) -> web.StreamResponse:
        """List the one model."""
        return raw(encoded({"object": "list", "data": [self._model()]}))

    async def model(self, _request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Return the model by its name."""
        try:
            openai.check_model(unquote(name), self._submission.model().info)
        except FieldError as error:
            raise ApiError(404, str(error), "model", NO_MODEL) from None
        return raw(encoded(self._model()))

    def _model(self) -> dict[str, Any]:
        info = self._submission.model().info
        return {"id": info.id, "object": "model", "created": info.created, "owned_by": "podkiln"}
