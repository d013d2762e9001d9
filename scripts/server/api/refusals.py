"""Requests that are refused: OpenAI's form of an error on its routes, the worker's on all others.

Source of the former: openai-python 3.57.0, whose clients try again after 408, 409, 429 and 500 on, unless
x-should-retry says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from server.requests.errors import FieldError
from worker.http_api import raw
from worker.http_errors import HttpError
from worker.job_record import encoded

if TYPE_CHECKING:
    from aiohttp import web

    from server.generation.request import RequestError
    from server.jobs.record import Failure

OPENAI: Final = "/v1/"
_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES: Final = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}
_SERVER: Final = 500
ONCE: Final = {"x-should-retry": "false"}
"""For what would fail again."""


class ApiError(HttpError):
    """A request that is refused. `parameter`: which field is wrong; `code`: what OpenAI calls that."""

    def __init__(
        self,
        status: int,
        message: str,
        parameter: str = "",
        code: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.parameter = parameter
        self.code = code


def of_request(error: RequestError) -> ApiError:
    """Return the refusal of a request that cannot be carried out."""
    if isinstance(error, FieldError):
        return ApiError(error.status, str(error), error.parameter, error.code)
    return ApiError(400, str(error), error.parameter)


def of_failure(failure: Failure) -> ApiError:
    """Return the refusal for a job that failed."""
    return ApiError(failure.status, failure.message, failure.parameter, failure.code, ONCE)


def body(path: str, error: HttpError) -> bytes:
    """Return what is said of an error to who asked for a path."""
    if not path.startswith(OPENAI):
        return encoded({"error": str(error)})
    kind = "server_error" if error.status >= _SERVER else _TYPES.get(error.status, "invalid_request_error")
    parameter, code = (error.parameter, error.code) if isinstance(error, ApiError) else ("", "")
    said = {
        "message": str(error),
        "type": kind,
        "param": parameter or None,
        "code": code or _CODES.get(error.status),
    }
    return encoded({"error": said})


def answer(path: str, error: HttpError) -> web.Response:
    """Return the answer to a request that is refused."""
    found = raw(body(path, error), error.status)
    found.headers.update(error.headers)
    return found
