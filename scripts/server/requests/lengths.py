"""How long a video or sound gets: seconds, in what the pipeline counts them in. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from server.requests.errors import UNKNOWN, FieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.schema.parameters import Schema

_RATES: Final = ("frame_rate", "fps")
_SOUND: Final = ("audio_end_in_s", "audio_length_in_s", "audio_duration", "duration")
_FRAMES: Final = 16.0
"""Frames a second of a pipeline that does not say: Wan's, which most of those are."""


def of_seconds(schema: Schema, seconds: float, values: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the parameter that means the length, and its value. Raises FieldError."""
    frames = schema.parameter("num_frames")
    if frames is None:
        name = next((each for each in _SOUND if schema.parameter(each)), None)
        if name is None:
            raise FieldError("seconds is nothing that this model takes.", "seconds", UNKNOWN)
        return name, seconds
    step = _step(frames.default)
    count = step * max(1, round(seconds * rate(schema, values) / step)) + (1 if step > 1 else 0)
    if frames.maximum is not None and count > frames.maximum:
        most = frames.maximum / rate(schema, values)
        raise FieldError(f"seconds is {seconds:g}, and {most:g} are the most.", "seconds")
    return "num_frames", count


def said(schema: Schema, values: Mapping[str, Any]) -> float | None:
    """Return how many seconds a video has by its parameters; None where they do not say."""
    frames = schema.parameter("num_frames")
    count = values.get("num_frames", frames.default if frames else None)
    return count / rate(schema, values) if isinstance(count, int | float) else None


def rate(schema: Schema, values: Mapping[str, Any]) -> float:
    """Return the frames a second."""
    for name in _RATES:
        parameter = schema.parameter(name)
        value = values.get(name, parameter.default if parameter else None)
        if isinstance(value, str):
            value = float(value) if value.replace(".", "", 1).isdigit() else None
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return float(value)
    return _FRAMES


def _step(default: Any) -> int:
    """Return how the pipeline counts: many take 4n + 1 or 8n + 1 frames alone, and so is their default."""
    return next((step for step in (8, 4) if isinstance(default, int) and default % step == 1), 1)
