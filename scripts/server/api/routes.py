"""What the server answers to, written once: requests are matched with it, and OpenAPI is made of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

NO_TOKEN: Final = True


@dataclass(frozen=True)
class Route:
    """One thing that can be asked for.

    Attributes:
        method: HTTP's.
        path: As OpenAPI writes it; what stands in braces is one step, or with `+` all that follow.
        name: What answers it.
        summary: What it does.
        answers: What comes: a schema of openapi.py, a media type, or "" for neither.
        body: The schema of what is sent; "" for nothing.
        is_open: Whether it is answered without a token.
        statuses: Further statuses, with what they mean.
    """

    method: str
    path: str
    name: str
    summary: str
    answers: str = ""
    body: str = ""
    is_open: bool = False
    statuses: tuple[tuple[int, str], ...] = ()

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What its paths look like."""
        steps = re.sub(r"\{\w+\}", "([^/]+)", self.path)
        return re.compile(re.sub(r"\{\w+\+\}", "(.+)", steps))


_GONE: Final = ((404, "There is none, or it is no longer kept."),)
_LOADING: Final = ((503, "The model is being loaded, or could not be."),)
_TAKEN: Final = (
    (400, "A field is wrong: the sentence says which, and why."),
    (408, "The body came too slowly."),
    (413, "The body is too large."),
    (429, "As many wait as may wait; `Retry-After` says when to try again."),
    (500, "The generation failed: for lack of the card's memory, in time, or by a bug."),
    *_LOADING,
)
_NAMED: Final = (*_TAKEN, (404, "The model that is asked for is not the one that is served."))

ROUTES: Final = (
    Route("GET", "/", "page", "Show a page to generate with.", "text/html", is_open=True),
    Route(
        "POST",
        "/v1/images/generations",
        "images",
        "Generate images, as OpenAI's API does; events, where `stream` is true.",
        "Images",
        "ImageRequest",
        statuses=_NAMED,
    ),
    Route(
        "POST",
        "/v1/images/edits",
        "images",
        "Edit images, as OpenAI's API does: `image` and perhaps `mask`, in a form or in JSON.",
        "Images",
        "EditRequest",
        statuses=_NAMED,
    ),
    Route(
        "POST",
        "/v1/videos",
        "create_video",
        "Let a video wait for its turn, as OpenAI's API does.",
        "Video",
        "VideoRequest",
        statuses=_NAMED,
    ),
    Route("GET", "/v1/videos", "list_videos", "List videos, newest first.", "Videos", statuses=_TAKEN[:1]),
    Route("GET", "/v1/videos/{id}", "video", "Tell how a video is.", "Video", statuses=_GONE),
    Route("DELETE", "/v1/videos/{id}", "delete_video", "End a video, and forget it.", "", statuses=_GONE),
    Route(
        "GET",
        "/v1/videos/{id}/content",
        "video_content",
        "Return the video itself.",
        "video/mp4",
        statuses=(*_GONE, (400, "It is not made yet, or will not be.")),
    ),
    Route(
        "POST",
        "/v1/audio/generate",
        "audio",
        "Generate sound, as vLLM-Omni does, and return the file.",
        "audio/wav",
        "AudioRequest",
        statuses=_NAMED,
    ),
    Route("GET", "/v1/models", "models", "List the model that is served.", "Models", statuses=_LOADING),
    Route(
        "GET", "/v1/models/{id+}", "model", "Return it by its name.", "Model", statuses=(*_GONE, *_LOADING)
    ),
    Route(
        "POST",
        "/generate",
        "generate",
        "Generate with the pipeline's own parameters: /schema lists them. The answer is the job, at its end; "
        "at once (202) with ?async or `Prefer: respond-async`; events, where Accept wants text/event-stream.",
        "Job",
        "GenerateRequest",
        statuses=((202, "The job, which waits."), (409, "It was cancelled."), *_NAMED),
    ),
    Route(
        "GET",
        "/jobs/{id}",
        "job",
        "Return where a job is and what came of it; follow it, where Accept asks for text/event-stream.",
        "Job",
        statuses=_GONE,
    ),
    Route(
        "DELETE", "/jobs/{id}", "cancel", "End a job; the model stops within a step.", "Job", statuses=_GONE
    ),
    Route(
        "GET",
        "/jobs/{id}/outputs/{number}",
        "output",
        "Return a file that a job made. Its address is the permission.",
        "application/octet-stream",
        is_open=True,
        statuses=_GONE,
    ),
    Route(
        "GET",
        "/schema",
        "schema",
        "Return what the model is, and the JSON Schema of each of its tasks, or of one (?task=).",
        "Schemas",
        is_open=True,
        statuses=(*_GONE, *_LOADING),
    ),
    Route("GET", "/openapi.json", "openapi", "Return this description.", "application/json", is_open=True),
    Route("GET", "/docs", "docs", "Show this description.", "text/html", is_open=True),
    Route(
        "GET",
        "/ping",
        "ping",
        "Tell a load balancer how the model is.",
        is_open=True,
        statuses=((204, "It is being loaded."), (503, "It failed, or the server is being stopped.")),
    ),
    Route(
        "GET", "/health", "health", "Tell how the model, loading and the queue are.", "Health", is_open=True
    ),
    Route(
        "GET",
        "/ready",
        "ready",
        "Tell a probe whether a job would be taken.",
        "Health",
        is_open=True,
        statuses=(*_LOADING, (429, "As many wait as may wait.")),
    ),
    Route("GET", "/metrics", "metrics", "Return figures for Prometheus.", "text/plain", is_open=True),
)


def matched(method: str, path: str) -> tuple[Route, tuple[str, ...]] | list[str]:
    """Return a route and what its path holds; or else the methods that the path can be asked with."""
    asked = "GET" if method == "HEAD" else method
    allowed = []
    for route in ROUTES:
        if found := route.pattern.fullmatch(path):
            if route.method == asked:
                return route, found.groups()
            allowed.append(route.method)
    return allowed
