"""From a request's body to a job that waits: read within limits, understood, checked, put into the queue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from server.api import refusals
from server.api.refusals import ApiError
from server.generation.request import RequestError
from server.jobs.queue import FullError, StoppingError
from server.requests import form, generations
from server.requests.media import Reader
from worker import http_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from server.api.served import Served
    from server.generation.request import Model, ModelInfo, Result
    from server.jobs.record import Job
    from server.requests.draft import Draft
    from server.requests.form import Form
    from worker.serve_settings import Settings

_MEMORY: Final = 20  # times the largest request: what comes in, waits and runs
CANCELLED: Final = "The generation was cancelled."
_SOON: Final = "5"  # seconds until the model may be there


class _Held:
    """The memory that one request takes."""

    def __init__(self, memory: http_body.Memory) -> None:
        self._memory = memory
        self._size = 0

    def note(self, size: int) -> None:
        """Take over what was taken before."""
        self._size += size

    def take(self, size: int) -> None:
        """Take more. Raises HttpError."""
        self._memory.take(size)
        self._size += size

    def give(self) -> None:
        """Give all of it back."""
        self._memory.give(self._size)
        self._size = 0


class Submission:
    """Makes jobs of requests.

    Args:
        settings: The limits.
        served: The model and its queue.
        private: Whether addresses of files may be of hosts that are not public.
    """

    def __init__(self, settings: Settings, served: Served, *, private: bool) -> None:
        self._settings = settings
        self._served = served
        self._private = private
        self._memory = http_body.Memory(_MEMORY * settings.request_bytes)

    def model(self) -> Model:
        """Return the model. Raises ApiError as long as there is none."""
        served = self._served
        if served.problem:
            raise ApiError(503, f"The model could not be loaded: {served.problem}", headers=refusals.ONCE)
        if served.model is None:
            raise ApiError(
                503, f"The model is being loaded ({served.phase}).", headers={"Retry-After": _SOON}
            )
        return served.model

    async def job(
        self,
        request: web.BaseRequest,
        read: Callable[[Form, ModelInfo], Draft],
        about: Callable[[], dict[str, Any]] = dict,
        change: Callable[[Draft], None] = lambda _: None,
    ) -> Job:
        """Return the job that a request asks for. Raises HttpError.

        Args:
            request: The request.
            read: Reads its fields. Raises RequestError.
            about: What its route remembers of it.
            change: Changes the draft before the model sees it.
        """
        model = self.model()
        self.check_room()  # before a large body comes, too
        held = _Held(self._memory)
        try:
            body = await http_body.read(request, self._settings.request_bytes, self._memory)
            held.note(len(body))
            async with self._memory.turn:
                # Beside the event loop: thirty megabytes take a while.
                parsed = await asyncio.to_thread(
                    form.parse, bytes(body), request.headers.get("Content-Type", "")
                )
            del body
            draft = read(parsed, model.info)
            change(draft)
            reader = Reader(self._settings.request_bytes, held.take, private=self._private)
            generation = await generations.made(draft, model, reader)
            self.check_room()  # others may have come meanwhile
            job = self._served.queue.submit(model, generation, about())
        except RequestError as error:
            held.give()
            raise refusals.of_request(error) from None
        except BaseException:
            held.give()
            raise
        job.release = held.give
        return job

    def check_room(self) -> None:
        """Check that a job would be taken. Raises ApiError."""
        try:
            self._served.queue.check_room()
        except FullError as full:
            raise ApiError(429, str(full), headers={"Retry-After": str(full.pause)}) from None
        except StoppingError as stopping:
            raise ApiError(503, str(stopping)) from None

    async def result(self, job: Job) -> Result:
        """Wait for a job, and end it when its client goes. Raises ApiError where nothing came of it."""
        queue = self._served.queue
        try:
            await job.wait()
        except asyncio.CancelledError:
            queue.cancel(job)
            raise
        if job.result is not None:
            return job.result
        queue.forget(job.id)
        if job.failure:
            raise refusals.of_failure(job.failure)
        raise ApiError(409, CANCELLED, headers=refusals.ONCE)

    def forget(self, job: Job) -> None:
        """Forget a job all of which goes into its answer."""
        self._served.queue.forget(job.id)
