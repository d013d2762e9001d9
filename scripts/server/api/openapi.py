"""The description of this interface: OpenAPI (spec.openapis.org/oas/v3.1.0), and a page of it."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any, Final

from server.api.routes import ROUTES, Route
from server.requests.draft import FORMATS, MOST_SEED
from server.requests.openai import MOST_IMAGES

if TYPE_CHECKING:
    from server.generation.request import Model

_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer"}
_NUMBER: Final = {"type": "number"}
_SWITCH: Final = {"type": "boolean", "default": False}
_OBJECT: Final = {"type": "object"}
_FILE: Final = {**_TEXT, "description": "An upload, an http(s) address, a data: URI, or base64."}
_FILES: Final = {"anyOf": [_FILE, {"type": "array", "items": _FILE}]}
_LORA: Final = {"type": "object", "required": ["name"], "properties": {"name": _TEXT, "scale": _NUMBER}}
_SHARED: Final = {
    "model": {**_TEXT, "description": "The one that is served, or left out."},
    "seed": {**_WHOLE, "minimum": -1, "maximum": MOST_SEED, "description": "Drawn where left out, or -1."},
    "scheduler": {**_TEXT, "description": "A class of diffusers: /schema lists which."},
    "lora": {"type": "array", "items": _LORA, "description": "In place of those that are loaded."},
    "output_format": {**_TEXT, "enum": [*FORMATS], "default": "png"},
    "output_compression": {
        **_WHOLE,
        "minimum": 0,
        "maximum": 100,
        "description": "Of jpeg and webp: quality.",
    },
}
_OPENAI: Final = {
    **_SHARED,
    "prompt": _TEXT,
    "size": {**_TEXT, "default": "auto", "description": "Such as 1024x768."},
    "extra_params": {**_OBJECT, "description": "Further parameters of the pipeline; also diffusers_kwargs."},
}
_IMAGES: Final = {
    **_OPENAI,
    "n": {**_WHOLE, "minimum": 1, "maximum": MOST_IMAGES, "default": 1},
    "response_format": {**_TEXT, "enum": ["b64_json", "url"], "default": "b64_json"},
    "background": {**_TEXT, "enum": ["auto", "opaque"]},
    "quality": {**_TEXT, "description": "Changes nothing here: num_inference_steps does."},
    "stream": _SWITCH,
    "partial_images": {**_WHOLE, "minimum": 0, "maximum": 3},
}


def _object(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        **({"required": [*required]} if required else {}),
        **more,
    }


_OWN_WORDS: Final = "Beside these: the parameters of the pipeline, by their own names (/schema)."
_OUTPUT: Final = _object(
    {
        "filename": _TEXT,
        "type": {**_TEXT, "enum": ["base64", "s3_url", "url"]},
        "mime": _TEXT,
        "seed": _WHOLE,
        "width": _WHOLE,
        "height": _WHOLE,
        "data": _TEXT,
    }
)
_OUTPUTS: Final = {"type": "array", "items": _OUTPUT}
_SCHEMAS: Final[dict[str, Any]] = {
    "ImageRequest": _object(_IMAGES, "prompt", description=_OWN_WORDS),
    "EditRequest": _object(
        {**_IMAGES, "image": _FILES, "mask": _FILE}, "prompt", "image", description=_OWN_WORDS
    ),
    "VideoRequest": _object(
        {**_OPENAI, "seconds": _TEXT, "input_reference": _FILE}, "prompt", description=_OWN_WORDS
    ),
    "AudioRequest": _object(
        {**_SHARED, "input": _TEXT, "audio_length": _NUMBER, "audio_start": _NUMBER},
        "input",
        description=_OWN_WORDS,
    ),
    "GenerateRequest": _object(
        {
            **_SHARED,
            "task": {**_TEXT, "description": "One of the model's; else it follows from the files."},
            "previews": {**_SWITCH, "description": "Small pictures on the way, among the events."},
        },
        description=_OWN_WORDS,
    ),
    "Images": _object(
        {
            "created": _WHOLE,
            "data": {
                "type": "array",
                "items": _object({"b64_json": _TEXT, "url": _TEXT, "seed": _WHOLE}),
            },
            "size": _TEXT,
            "output_format": _TEXT,
            "background": _TEXT,
        }
    ),
    "Video": _object(
        {
            "id": _TEXT,
            "object": {"const": "video"},
            "model": _TEXT,
            "status": {**_TEXT, "enum": ["queued", "in_progress", "completed", "failed"]},
            "progress": _WHOLE,
            "created_at": _WHOLE,
            "completed_at": {"type": ["integer", "null"]},
            "expires_at": {"type": ["integer", "null"]},
            "prompt": _TEXT,
            "seconds": _TEXT,
            "size": _TEXT,
            "seed": _WHOLE,
            "error": {"type": ["object", "null"]},
        }
    ),
    "Videos": _object(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Video"}},
            "has_more": {"type": "boolean"},
            "first_id": _TEXT,
            "last_id": _TEXT,
        }
    ),
    "Model": _object({"id": _TEXT, "object": {"const": "model"}, "created": _WHOLE, "owned_by": _TEXT}),
    "Models": _object(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
        }
    ),
    "Job": _object(
        {
            "id": _TEXT,
            "status": {
                **_TEXT,
                "enum": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"],
            },
            "created": _WHOLE,
            "position": _WHOLE,
            "delayTime": {**_WHOLE, "description": "Milliseconds that it waited."},
            "executionTime": {**_WHOLE, "description": "Milliseconds that it ran."},
            "progress": _object({"step": _WHOLE, "steps": _WHOLE, "percent": _WHOLE}),
            "output": _object(
                {
                    **dict.fromkeys(("images", "videos", "audio", "files"), _OUTPUTS),
                    "parameters": _OBJECT,
                    "model": _OBJECT,
                    "timings": _OBJECT,
                }
            ),
            "error": _TEXT,
        },
        "id",
        "status",
    ),
    "Schemas": _object({"model": _OBJECT, "tasks": _OBJECT}),
    "Health": _object({"status": _TEXT}, additionalProperties=True),
    "Error": _object({"error": _TEXT}, "error"),
    "OpenAIError": _object(
        {
            "error": _object(
                {
                    "message": _TEXT,
                    "type": _TEXT,
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                }
            )
        },
        "error",
    ),
}
_FOR_ALL: Final = (
    (401, "The token is missing or wrong."),
    (403, "A page of another site asks."),
    (429, "Too many requests."),
)
_ERRORS_FROM: Final = 400


def document(model: Model | None) -> dict[str, Any]:
    """Return the description, with the parameters of the model as soon as it is there."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path.replace("+}", "}"), {})[route.method.lower()] = _operation(route)
    schemas = dict(_SCHEMAS)
    if model:
        tasks = [_with_ours(model.schema(task).to_json_schema()) for task in model.info.tasks]
        schemas["GenerateRequest"] = {"anyOf": tasks}
    about = f"{model.info.id}, by {model.info.pipeline}." if model else "A model that is being loaded."
    return {
        "openapi": "3.1.0",
        "info": {"title": "podkiln", "version": "1", "summary": about},
        "security": [{"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _with_ours(task: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a task with what all tasks take beside it: it allows nothing else."""
    ours = _SCHEMAS["GenerateRequest"]["properties"]
    return {**task, "properties": {**ours, **task.get("properties", {})}}


def _operation(route: Route) -> dict[str, Any]:
    statuses = {} if route.is_open else dict(_FOR_ALL)
    statuses |= dict(route.statuses)
    form = "OpenAIError" if route.path.startswith("/v1/") else "Error"
    answers: dict[str, Any] = {"200": {"description": "So it is.", **_content(route.answers)}}
    for status, about in sorted(statuses.items()):
        said = _content(form) if status >= _ERRORS_FROM and route.name != "ping" else {}
        answers[str(status)] = {"description": about, **(said or {})}
    found: dict[str, Any] = {
        "operationId": f"{route.method.lower()}-{route.path.strip('/').replace('/', '-') or 'page'}",
        "summary": route.summary,
        "responses": answers,
    }
    if names := re.findall(r"\{(\w+)\+?\}", route.path):
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names
        ]
    if route.body:
        schema = {"schema": {"$ref": f"#/components/schemas/{route.body}"}}
        kinds = dict.fromkeys(("application/json", "multipart/form-data"), schema)
        found["requestBody"] = {"required": True, "content": kinds}
    if route.is_open:
        found["security"] = []
    return found


def _content(said: str) -> dict[str, Any]:
    if not said:
        return {}
    if "/" in said:
        return {"content": {said: {}}}
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{said}"}}}}


def page() -> str:
    """Return the description as a page that needs nothing else."""
    rows = "".join(
        f"<tr><td>{route.method}</td><td><code>{html.escape(route.path)}</code></td>"
        f"<td>{html.escape(route.summary)}</td></tr>"
        for route in ROUTES
    )
    names = [each.body for each in ROUTES if each.body] + ["Job"]
    shown = "".join(
        f"<h2>{name}</h2><pre>{html.escape(json.dumps(_SCHEMAS[name], indent=2))}</pre>"
        for name in dict.fromkeys(names)
    )
    return (
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>podkiln</title>"
        "<meta name=viewport content='width=device-width'><meta name=color-scheme content='light dark'>"
        "<style>body{font:16px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "td{padding:.3em .8em;vertical-align:top}pre{border:1px solid;padding:1em;overflow:auto}</style>"
        "<h1>podkiln</h1>"
        '<p>One model behind HTTP. For programs: <a href="openapi.json">openapi.json</a>, '
        '<a href="schema">schema</a>. <a href="./">The page to generate with</a>.</p>'
        f"<table>{rows}</table>{shown}</html>\n"
    )
