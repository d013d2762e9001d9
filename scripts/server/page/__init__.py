"""The page at `/`: a form made from GET /schema, progress, the result. One file that asks nobody else.

What it says to the server, with `Authorization: Bearer TOKEN` once a token was typed:

- GET /health: {"status": "loading" | "ready" | "failed", "phase": a sentence,
  "queue": {"waiting", "running"}}.
- GET /schema: {"model": {"id", "revision", "pipeline", "task", "dtype", "mode", "loras", ...},
  "tasks": {name: JSON Schema as `Schema.to_json_schema` makes it}}; the form begins with the model's task.
- POST /generate, Accept: text/event-stream: {"task", "previews": true, parameters by their own names that
  are not their default, "lora": [{"name", "scale"}]}; files are data: URIs, several in a list. Events:
  `status` {"id", "status", "position"}; `progress` {"step", "steps", "preview"?: data: URI of a JPEG};
  at its end `result` {"id", "status", "output": {"images" | "videos" | "audio" | "files": [{"filename",
  "mime", "seed", "type": "base64" | "url" | "s3_url", "data"}], "parameters": {...}, "timings": {phase:
  seconds}}}, or with "error" in place of "output". Refusals are {"error": sentence} or {"error":
  {"message", "param"}}; a sentence that begins with a parameter's name is shown at its field.
- DELETE /jobs/ID cancels.

curl, as the page copies it, sends JSON, or a form where there are files.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("page.html")


@cache
def page() -> str:
    """Return the page."""
    return _FILE.read_text(encoding="utf-8")


@cache
def policy() -> str:
    """Return the Content-Security-Policy to send with it: its own script and style, and this server alone."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash('script')}",
            f"style-src {_hash('style')}",
            "img-src 'self' data: blob:",
            "media-src 'self' data: blob:",
            "connect-src 'self' blob:",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ]
    )


def _hash(element: str) -> str:
    """Return what an element holds, as policies name it (www.w3.org/TR/CSP3, 2.3.1)."""
    found = re.search(f"<{element}>(.*?)</{element}>", page(), re.DOTALL)
    content = found[1] if found else ""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
