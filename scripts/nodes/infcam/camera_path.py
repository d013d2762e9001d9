"""Camera paths: upstream's ten, or one of the user's own, written as upstream's script reads them.

Upstream's file (sample_data/cameras/camera_extrinsics_10types.json) has for each frame and camera Unreal
Engine's camera-to-world matrix, transposed, in centimetres; its script makes of it a matrix with x to the
right, y down and z forward, in metres. One's own path is given as the latter, which is what people have.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from .pod_facts import NodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    Matrix = list[list[float]]

PRESETS: Final = (
    "pan right",
    "pan left",
    "tilt up",
    "tilt down",
    "zoom in",
    "zoom out",
    "translate up",
    "translate down",
    "arc left",
    "arc right",
)
"""Upstream's cameras 1 to 10, as its README calls them."""
FRAMES: Final = 81
"""How many frames upstream's paths have."""
STEP: Final = 4
"""Every fourth frame has a latent, and upstream reads the pose of these alone."""
OWN: Final = 1
"""The number of the camera as which one's own path is written."""
_FARTHEST: Final = 1e9
"""Metres: JSON's whole numbers have no end, and what is no number is no less than this either."""


def preset(name: str) -> int:
    """Return the number of one of upstream's cameras. Raises NodeError."""
    if name not in PRESETS:
        raise NodeError(f"{name!r} is no camera path of InfCam's: it is one of {', '.join(PRESETS)}.")
    return PRESETS.index(name) + 1


def own(text: str, frames: int) -> dict[str, dict[str, str]]:
    """Return one's own path as upstream's script reads it.

    Args:
        text: JSON, a list of 4 x 4 or 3 x 4 camera-to-world matrices, one a frame or one for every fourth.
        frames: How many frames the video has.

    Raises NodeError where it is not that.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise NodeError(f"The camera path is not JSON: {err}.") from err
    latents = (frames - 1) // STEP + 1
    if not isinstance(data, list) or len(data) not in (frames, latents):
        found = f"a list of {len(data)}" if isinstance(data, list) else "no list"
        raise NodeError(
            f"The camera path has to be a list of {frames} matrices, one a frame, or of {latents}, one for "
            f"every fourth frame; it is {found}."
        )
    step = STEP if len(data) == frames else 1
    poses = [_matrix(data[at], at) for at in range(0, len(data), step)]
    return {f"frame{STEP * at}": {f"cam{OWN:02d}": written(pose)} for at, pose in enumerate(poses)}


def _matrix(rows: Any, number: int) -> Matrix:
    """Return the upper three rows of a matrix. Raises NodeError."""
    good = isinstance(rows, list) and len(rows) in (3, 4)
    good = good and all(isinstance(row, list) and len(row) == 4 for row in rows)  # noqa: PLR2004 - 4 x 4
    good = good and all(type(each) in (int, float) and abs(each) <= _FARTHEST for row in rows for each in row)
    if not good:
        raise NodeError(f"Matrix {number} of the camera path is no 4 x 4 or 3 x 4 list of numbers.")
    if len(rows) == 4 and rows[3] != [0, 0, 0, 1]:  # noqa: PLR2004 - as above
        raise NodeError(f"Matrix {number} of the camera path does not end in 0 0 0 1, so it is no camera's.")
    turned = [row[:3] for row in rows[:3]]
    if not _is_rotation(turned):
        raise NodeError(
            f"Matrix {number} of the camera path does not turn, it skews or scales: no camera does."
        )
    return [[float(each) for each in row] for row in rows[:3]]


def _is_rotation(rows: Sequence[Sequence[float]], slack: float = 1e-3) -> bool:
    """Whether rows are of length 1, square to one another, and right-handed."""
    for one in range(3):
        for other in range(one, 3):
            product = sum(a * b for a, b in zip(rows[one], rows[other], strict=True))
            if abs(product - (one == other)) > slack:
                return False
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) > 0


def written(pose: Matrix) -> str:
    """Return a matrix as upstream's file has it: the inverse of what its script makes of that.

    The script takes columns 1, 2 and 0 of the transposed matrix, turns the second one round, and divides
    the last one by 100.
    """
    right, down, forward, place = zip(*pose, strict=True)
    up = tuple(-each for each in down)
    rows = [(*forward, 0.0), (*right, 0.0), (*up, 0.0), (*(100 * each for each in place), 1.0)]
    return " ".join(f"[{' '.join(map(repr, row))}]" for row in rows) + " "
