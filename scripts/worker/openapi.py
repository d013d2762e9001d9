"""What `serve` answers to, written once: the table that requests are matched with, OpenAPI, and a page of it.

Source of the format: spec.openapis.org/oas/v3.1.0. Names and states: docs/reference/serverless.md.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Route:
    """One thing that can be asked for.

    Args:
        method: GET or POST.
        name: The first part of its path.
        summary: What it does.
        answers: What each status means.
        of_job: Whether the id of a job follows in the path.
        is_open: Whether it is answered without a token.
        body: The schema of what is sent.
    """

    method: str
    name: str
    summary: str
    answers: dict[int, str]
    of_job: bool = False
    is_open: bool = False
    body: str = ""

    @property
    def path(self) -> str:
        """Its path, as OpenAPI writes it."""
        return f"/{self.name}/{{id}}" if self.of_job else f"/{self.name}"


_JOB = "The job, as it is now."
_ENDED = {404: "No such job, or its result is no longer kept."}
_TAKEN = {
    400: "The body cannot be used.",
    413: "The body is too large.",
    429: "Too many jobs wait; `Retry-After` says when to try again.",
    503: "The worker is being stopped.",
}
ROUTES: Final = (
    Route(
        "POST",
        "run",
        "Let a job wait for its turn, and return its id.",
        {200: _JOB, **_TAKEN},
        body="Request",
    ),
    Route(
        "POST",
        "runsync",
        "Run a job and return what came of it, or where it is when the wait is over (?wait=MILLISECONDS); "
        "follow it, where Accept asks for text/event-stream.",
        {200: _JOB, **_TAKEN},
        body="Request",
    ),
    Route("GET", "status", "Return where a job is, and what came of it.", {200: _JOB, **_ENDED}, of_job=True),
    Route(
        "GET",
        "stream",
        "Follow a job: events `status`, `progress`, and `result` at its end.",
        {200: "Server-sent events; as JSON, what there is to tell since the last time.", **_ENDED},
        of_job=True,
    ),
    Route("POST", "cancel", "End a job.", {200: _JOB, **_ENDED}, of_job=True),
    Route("POST", "purge-queue", "Cancel all jobs that wait.", {200: "How many there were."}),
    Route("GET", "health", "Return how many jobs and workers there are.", {200: "The counts."}, is_open=True),
    Route(
        "GET",
        "ping",
        "Tell a load balancer how ComfyUI is.",
        {200: "It serves.", 204: "It starts.", 503: "It does not answer, or the worker is being stopped."},
        is_open=True,
    ),
    Route(
        "GET",
        "ready",
        "Tell a probe whether a job would be taken.",
        {200: "It would.", 503: "It would not: the sentence says why."},
        is_open=True,
    ),
    Route(
        "GET",
        "schema",
        "Return the JSON Schema of `input` for each preset, by its id, or for one (?preset=ID).",
        {200: "The schemas, or the one.", 404: "There is no such preset here."},
        is_open=True,
    ),
    Route("GET", "openapi.json", "Return this description.", {200: "OpenAPI 3.1."}, is_open=True),
    Route("GET", "docs", "Show this description.", {200: "A page."}, is_open=True),
)

_TEXT: Final = {"type": "string"}
_OBJECT: Final = {"type": "object"}
_IMAGE: Final = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {**_TEXT, "description": "As the workflow has it."},
        "image": {**_TEXT, "description": "Base64, or a data: URI."},
        "url": {**_TEXT, "format": "uri", "description": "In its place: an address on the public internet."},
    },
}
_INPUT: Final = {
    "type": "object",
    "required": ["workflow"],
    "properties": {
        "workflow": {**_OBJECT, "description": "Of ComfyUI's Export (API)."},
        "images": {"type": "array", "items": _IMAGE},
        "comfy_org_api_key": _TEXT,
        "legacy_outputs": {"type": "boolean", "default": False},
    },
}
_REQUEST: Final = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "input": {
            "anyOf": [
                _INPUT,
                {**_OBJECT, "description": "The inputs of a preset: /schema says which there are."},
                {**_TEXT, "description": "One of these as JSON."},
            ]
        },
        "policy": {
            "type": "object",
            "properties": {
                "executionTimeout": {"type": "number", "minimum": 5000, "description": "Milliseconds."}
            },
        },
    },
}
_STATES: Final = ["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
_JOB_SCHEMA: Final = {
    "type": "object",
    "required": ["id", "status"],
    "properties": {
        "id": _TEXT,
        "status": {**_TEXT, "enum": _STATES},
        "position": {"type": "integer", "description": "IN_QUEUE: its place, from 1."},
        "delayTime": {"type": "integer", "description": "Milliseconds that it waited."},
        "executionTime": {"type": "integer", "description": "Milliseconds that it ran."},
        "output": {**_OBJECT, "description": "What came out; IN_PROGRESS: how far it is."},
        "error": {**_TEXT, "description": "Why it failed."},
        "workerId": _TEXT,
    },
}
_ERROR: Final = {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}
_FOR_ALL: Final = {401: "The token is missing or wrong.", 429: "Too many requests."}


def document(version: str = "1") -> dict[str, Any]:
    """Return the description of this interface in OpenAPI."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "podkiln", "version": version, "summary": "ComfyUI's workflows as jobs over HTTP."},
        "security": [{"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": {"Request": _REQUEST, "Job": _JOB_SCHEMA, "Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    answers = route.answers if route.is_open else {**_FOR_ALL, **route.answers}
    found: dict[str, Any] = {
        "operationId": route.name.replace(".", "-"),
        "summary": route.summary,
        "responses": {str(status): _answer(status, answers[status]) for status in sorted(answers)},
    }
    if route.of_job:
        found["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": _TEXT}]
    if route.name == "runsync":
        wait = {"type": "integer", "minimum": 1000, "description": "Milliseconds."}
        found["parameters"] = [{"name": "wait", "in": "query", "schema": wait}]
    if route.name == "schema":
        found["parameters"] = [{"name": "preset", "in": "query", "schema": _TEXT}]
    if route.body:
        found["requestBody"] = {"required": True, "content": _json(route.body)}
    if route.is_open:
        found["security"] = []
    return found


def _answer(status: int, about: str) -> dict[str, Any]:
    said: dict[str, Any] = {"description": about}
    if about == _JOB:
        said["content"] = _json("Job")
    elif status >= 400:  # noqa: PLR2004 - where HTTP's errors begin
        said["content"] = _json("Error")
    return said


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def page() -> str:
    """Return the description as a page that needs nothing else."""
    rows = "".join(
        f"<tr><td>{route.method}</td><td><code>{html.escape(route.path)}</code></td>"
        f"<td>{html.escape(route.summary)}</td></tr>"
        for route in ROUTES
    )
    schemas = {"What is sent": _REQUEST, "What a job looks like": _JOB_SCHEMA}
    shown = "".join(
        f"<h2>{name}</h2><pre>{html.escape(json.dumps(schema, indent=2))}</pre>"
        for name, schema in schemas.items()
    )
    return (
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>podkiln</title>"
        "<style>body{font:16px sans-serif;max-width:60em;margin:2em auto}"
        "td{padding:.3em .8em;vertical-align:top}pre{background:#eee;padding:1em;overflow:auto}</style>"
        "<h1>podkiln</h1>"
        '<p>ComfyUI\'s workflows as jobs. For programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"<table>{rows}</table>{shown}</html>\n"
    )
