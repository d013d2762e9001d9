"""The HTTP server of `serve`: aiohttp's, with limits that it leaves to others.

Source: web_protocol.py of aiohttp 3.14.5, which answers what is no HTTP as plain text and logs a traceback.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from pod.errors import UNFIT, PodError
from worker.http_api import refusal
from worker.http_errors import HttpError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable

_IDLE_SECONDS: Final = 15.0
"""Seconds that a connection may have no request: before the first, as headers come slowly, or between two."""
_LINGERING: Final = 5.0  # seconds in which a client that was refused may still send
_MOST_CONNECTIONS: Final = 800  # of the 1024 files that a process may have open
_LAST_ANSWERS: Final = 1.0  # seconds that answers may take when the server ends
_BAD_REQUEST: Final = 400


class _Protocol(web.RequestHandler):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if isinstance(self._manager, _Server) and len(self._manager.connections) > _MOST_CONNECTIONS:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp's name
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - quotes what was sent
    ) -> web.StreamResponse:
        """Answer what is no HTTP; nothing else comes here, for the handler raises nothing."""
        if isinstance(exc, LineTooLong):
            error = HttpError(431, "The address or a header of this request is too long.")
        elif status == _BAD_REQUEST:
            error = HttpError(400, "This is no request that can be understood.")
        else:
            error = HttpError(status, "The request cannot be answered.")
        answer = refusal(error)
        answer.force_close()
        return answer

    def log_exception(self, *_: Any, **__: Any) -> None:
        """Log nothing: what clients send is not for the log."""


class _Server(web.Server):
    """The connections of a server."""

    def __call__(self) -> _Protocol:
        return _Protocol(
            self,
            loop=self._loop,
            auto_decompress=False,
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=_LINGERING,
        )


@asynccontextmanager
async def serving(
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    host: str | None,
    port: int,
    *,
    cancels: bool = False,
) -> AsyncIterator[int]:
    """Serve as long as the block lasts, and let answers that were begun end. Raises PodError.

    Yields the port. With several addresses behind None, as 0.0.0.0 and ::, all of them are listened on. With
    `cancels`, what answers a client is cancelled when the client goes.
    """
    runner = web.ServerRunner(_Server(answer, handler_cancellation=cancels), shutdown_timeout=_LAST_ANSWERS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise PodError(
            f"Port {port} cannot be listened on: {os.strerror(error.errno or 0)}.", UNFIT
        ) from None
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
