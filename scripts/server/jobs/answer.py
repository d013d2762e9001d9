"""What came of a job, in the form that podkiln's serverless worker answers with. Pure."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from server.generation.request import AUDIO, IMAGE, VIDEO

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.generation.request import ModelInfo, Output, Result

BASE64, S3, URL = "base64", "s3_url", "url"
_GROUPS: Final = {IMAGE: "images", VIDEO: "videos", AUDIO: "audio"}
_OTHER: Final = "files"
_AROUND: Final = 2_000  # bytes of JSON around it all, and around each output


def filename(number: int, output: Output) -> str:
    """Return the name of an output, such as image-0.png."""
    return f"{output.kind}-{number}.{output.suffix.lstrip('.')}"


def encoded_size(result: Result) -> int:
    """Return how many bytes an answer takes with all outputs in it, at most."""
    return _AROUND + sum(_AROUND + len(each.content) * 4 // 3 for each in result.outputs)


def inline(_number: int, output: Output) -> tuple[str, str]:
    """Return an output as base64."""
    return BASE64, base64.b64encode(output.content).decode()


def output(
    result: Result, info: ModelInfo, placed: Callable[[int, Output], tuple[str, str]] = inline
) -> dict[str, Any]:
    """Return what came of a job. `placed`: says of an output where it is, as `type` and `data`."""
    found: dict[str, Any] = {}
    for number, each in enumerate(result.outputs):
        kind, data = placed(number, each)
        entry = {
            "filename": filename(number, each),
            "type": kind,
            "mime": each.mime,
            "seed": each.seed,
            **({"width": each.width, "height": each.height} if each.width else {}),
            "data": data,
        }
        found.setdefault(_GROUPS.get(each.kind, _OTHER), []).append(entry)
    return {
        **found,
        "parameters": dict(result.parameters),
        "model": {"id": info.id, "revision": info.revision, "class": info.pipeline},
        "timings": {name: round(seconds, 3) for name, seconds in result.seconds.items()},
        **({"vram_peak": result.vram_peak} if result.vram_peak else {}),
    }
