"""A job's answer: fields, partial failures, and the size that the platform passes on."""

from __future__ import annotations

import base64
import json

import pytest

from comfy.answers import Output
from worker.answer import Answer
from worker.errors import JobError
from worker.outputs import OutputFile

PICTURE = OutputFile(Output("9", "a.png", "night", "output"), "image/png", "images", "images")
VIDEO = OutputFile(Output("10", "a.mp4", "", "output"), "video/mp4", "videos", "images")


def test_a_picture_comes_as_worker_comfyui_gives_it_and_says_more() -> None:
    answer = Answer()
    answer.add(PICTURE, b"picture")
    assert answer.result([]) == {
        "images": [
            {
                "filename": "a.png",
                "type": "base64",
                "data": base64.b64encode(b"picture").decode(),
                "subfolder": "night",
                "mime": "image/png",
                "node": "9",
            }
        ]
    }


def test_a_video_has_a_place_of_its_own() -> None:
    answer = Answer()
    answer.add(VIDEO, b"video")
    answer.say([{"node": "5", "text": "seen"}])
    result = answer.result([])
    assert (result["images"], [each["filename"] for each in result["videos"]]) == ([], ["a.mp4"])
    assert result["texts"] == [{"node": "5", "text": "seen"}]
    assert "audio" not in result


def test_older_clients_find_it_where_they_look() -> None:
    answer = Answer(legacy=True)
    answer.add(VIDEO, b"video")
    assert answer.result([])["images"] == answer.result([])["videos"]


def test_nothing_to_return_is_a_success() -> None:
    assert Answer().result([]) == {"status": "success_no_images", "images": []}


def test_what_came_out_comes_with_what_went_wrong_beside_it() -> None:
    answer = Answer()
    answer.add(PICTURE, b"picture")
    assert answer.result(["One is missing."])["errors"] == ["One is missing."]


def test_errors_alone_are_a_failure() -> None:
    with pytest.raises(JobError) as failed:
        Answer().result(["It broke."])
    assert failed.value.answer == {"error": "Job processing failed", "details": ["It broke."]}


@pytest.mark.parametrize("legacy", [False, True])
def test_an_answer_is_as_large_as_the_platform_takes_and_no_larger(legacy: bool) -> None:
    answer = Answer(legacy=legacy, largest=100_000)
    answer.add(VIDEO, b"x" * answer.room(VIDEO))
    assert 97_000 < len(json.dumps(answer.result([]))) <= 100_000
    assert answer.room(VIDEO) == 0


def test_more_than_that_is_refused_by_name() -> None:
    answer = Answer(largest=1_000_000)
    with pytest.raises(JobError, match=r"larger than 1 MB as base64, which RunPod does not pass on \(a.png"):
        answer.add(PICTURE, b"x" * 1_000_000)
    with pytest.raises(JobError, match="texts of this job are larger than 1 MB"):
        answer.say([{"node": "5", "text": "x" * 1_000_000}])
