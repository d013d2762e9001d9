"""Frames in and out without a video file: upstream's script has H.264, which would cost quality twice."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Reader:
    """Stands for imageio's reader of a video: the frames of an array, [frames, height, width, 3]."""

    def __init__(self, frames: Any) -> None:
        self._frames = frames

    def count_frames(self) -> int:
        """Return how many frames there are."""
        return len(self._frames)

    def get_data(self, number: int) -> Any:
        """Return a frame."""
        return self._frames[number]

    def close(self) -> None:
        """Do nothing: there is no file."""


def install(source: Path, result: Path) -> None:
    """Have upstream's script read its video from `source`, and write it to `result`."""
    import diffsynth  # noqa: PLC0415 - upstream's, on the path since this process knows where
    import imageio  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    held = np.load(source)

    def save_video(frames: Iterable[Any], *_: Any, **__: Any) -> None:
        np.save(result, np.stack([np.asarray(each) for each in frames]))

    imageio.get_reader = lambda *_, **__: Reader(held)
    diffsynth.save_video = save_video
    # Else it takes the prompts "" and "None" for no text, and "2001" for a number.
    pd.read_csv = functools.partial(pd.read_csv, dtype=str, keep_default_na=False)
