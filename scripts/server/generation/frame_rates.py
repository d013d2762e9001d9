"""Frames a second of pipelines that have no parameter for them: a video is asked for and written in them.

Source: the examples in diffusers 0.42.1's pipelines, which hand these to export_to_video.
"""

from __future__ import annotations

from typing import Final

_RATES: Final = {"Wan": 16.0, "CogVideoX": 8.0, "Mochi": 30.0, "HunyuanVideo": 15.0, "Allegro": 15.0}
_OTHER: Final = 24.0


def usual(pipeline: str) -> float:
    """Return the frames a second of a class."""
    return next((rate for start, rate in _RATES.items() if pipeline.startswith(start)), _OTHER)
