"""Camera paths: upstream's script must read from the file what the user has meant."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from nodes.infcam import camera_path
from nodes.infcam.pod_facts import NodeError

STILL = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def turned(degrees: float, x: float) -> list[list[float]]:
    """Return a camera that has turned to the right, and moved `x` metres to the right."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [[c, 0, s, x], [0, 1, 0, -2 * x], [-s, 0, c, 3 * x], [0, 0, 0, 1]]


def read_as_upstream(text: str) -> list[list[float]]:
    """Do what parse_matrix and __getitem__ of upstream's inference_infcam.py do, at 8436c340."""
    rows = [row.replace("[", "").replace("]", "").split() for row in text.strip().split("] [")]
    transposed = [list(map(float, column)) for column in zip(*rows, strict=True)]
    c2w = [[row[1], row[2], row[0], row[3]] for row in transposed]
    for row in c2w[:3]:
        row[1] *= -1
        row[3] /= 100
    return c2w[:3]


def test_presets_are_numbered_as_upstream_numbers_them() -> None:
    assert [camera_path.preset(name) for name in camera_path.PRESETS] == list(range(1, 11))
    assert camera_path.preset("arc right") == 10
    with pytest.raises(NodeError, match="'roll' is no camera path of InfCam's: it is one of pan right, pan"):
        camera_path.preset("roll")


def test_upstream_reads_upstreams_own_first_pose() -> None:
    """The first line of its file, which has to come out as a camera that looks ahead, a little aside."""
    pose = read_as_upstream("[-0.17258 0 0.984996 0] [0.984996 0 0.17258 0] [-0 -1 -0 0] [0 0 0 1] ")
    assert pose == [[0.984996, 0, -0.17258, 0], [0, 1, 0, 0], [0.17258, 0, 0.984996, 0]]


@pytest.mark.parametrize("poses", [5, 2])
def test_ones_own_path_comes_out_as_it_was_given(poses: int) -> None:
    """One pose a frame, of which upstream reads every fourth, or every fourth alone."""
    path = [turned(10 * number, number / 7) for number in range(poses)]
    cameras = camera_path.own(json.dumps(path), 5)
    assert [*cameras] == ["frame0", "frame4"]
    for pose, name in zip((path[0], path[-1]), cameras, strict=True):
        found = read_as_upstream(cameras[name]["cam01"])
        assert found == [pytest.approx(row) for row in pose[:3]]


def test_three_rows_do() -> None:
    whole = json.dumps([STILL, turned(90, 1)])
    assert camera_path.own(json.dumps([STILL[:3], turned(90, 1)[:3]]), 5) == camera_path.own(whole, 5)


MALFORMED: list[tuple[Any, str]] = [
    ("[", "The camera path is not JSON: "),
    (
        {"frame0": {}},
        "has to be a list of 5 matrices, one a frame, or of 2, one for every fourth frame; it is no list",
    ),
    ([STILL] * 3, "it is a list of 3"),
    ([STILL, 7], "Matrix 1 of the camera path is no 4 x 4 or 3 x 4 list of numbers"),
    ([STILL, STILL[:2]], "Matrix 1 of the camera path is no 4 x 4"),
    ([STILL, [[1, 0, 0]] * 3], "Matrix 1 of the camera path is no 4 x 4"),
    ([[["1", 0, 0, 0], *STILL[1:]], STILL], "Matrix 0 of the camera path is no 4 x 4"),
    ([[[True, 0, 0, 0], *STILL[1:]], STILL], "Matrix 0 of the camera path is no 4 x 4"),
    ([[[math.nan, 0, 0, 0], *STILL[1:]], STILL], "Matrix 0 of the camera path is no 4 x 4"),
    ([[[math.inf, 0, 0, 0], *STILL[1:]], STILL], "Matrix 0 of the camera path is no 4 x 4"),
    ([[[1, 0, 0, 10**400], *STILL[1:]], STILL], "Matrix 0 of the camera path is no 4 x 4"),
    ("[" * 100_000, "The camera path is not JSON: "),
    ([STILL, [*STILL[:3], [5, 0, 0, 1]]], "Matrix 1 of the camera path does not end in 0 0 0 1"),
    ([STILL, [[2, 0, 0, 0], *STILL[1:]]], "Matrix 1 of the camera path does not turn, it skews or scales"),
    ([STILL, [[-1, 0, 0, 0], *STILL[1:]]], "Matrix 1 of the camera path does not turn"),
]


@pytest.mark.parametrize(("path", "sentence"), MALFORMED)
def test_a_path_that_is_none_is_refused_in_one_sentence(path: Any, sentence: str) -> None:
    with pytest.raises(NodeError, match=sentence) as refused:
        camera_path.own(path if isinstance(path, str) else json.dumps(path), 5)
    assert "\n" not in str(refused.value)
