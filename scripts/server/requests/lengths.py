"""How long a video or sound gets: seconds, in what the pipeline counts them in. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from server.generation import frame_rates
from server.requests.errors import UNKNOWN, FieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.schema.parameters import Parameter, Schema

_RATES: Final = ("frame_rate", "fps")
_SOUND: Final = ("audio_end_in_s", "audio_length_in_s", "audio_duration", "duration")


def of_seconds(schema: Schema, seconds: float, values: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the parameter that means the length, and its value. Raises FieldError."""
    frames = _frames(schema)
    if frames is None:
        name = next((each for each in _SOUND if schema.parameter(each)), None)
        if name is None:
            raise FieldError("seconds is nothing that this model takes.", "seconds", UNKNOWN)
        return name, seconds
    per_second = rate(schema, values)
    step, more = (frames.multiple, frames.offset) if frames.multiple else _step(frames.default)
    count = step * max(1, round((seconds * per_second - more) / step)) + more
    if frames.maximum is not None and count > frames.maximum:
        most = frames.maximum / per_second
        raise FieldError(f"seconds is {seconds:g}, and {most:.4g} are the most.", "seconds")
    return frames.name, count


def said(schema: Schema, values: Mapping[str, Any]) -> float | None:
    """Return how many seconds a video has by its parameters; None where they do not say."""
    frames = _frames(schema)
    count = values.get(frames.name, frames.default) if frames else None
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
    return frame_rates.usual(schema.pipeline)


def _frames(schema: Schema) -> Parameter | None:
    return next(filter(None, map(schema.parameter, ("num_frames", "video_length"))), None)


def _step(default: Any) -> tuple[int, int]:
    """Return how a pipeline counts that does not say: many take 4n + 1 or 8n + 1, as their default is."""
    found = (step for step in (8, 4) if isinstance(default, int) and default % step == 1)
    return next(((step, 1) for step in found), (1, 0))
