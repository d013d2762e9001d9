"""What ComfyUI's history names is sorted by what it is, not by the word that a node chose."""

from __future__ import annotations

from typing import Any

import pytest

from comfy import answers
from worker import outputs


def record(**shows: Any) -> dict[str, Any]:
    return {"outputs": {"9": shows}}


def file(name: str, **more: Any) -> dict[str, Any]:
    return {"filename": name, "subfolder": "", "type": "output", **more}


# Of core's SaveImage, SaveVideo, SaveAudio and Preview3D of ComfyUI 0.33.0, and of VideoHelperSuite.
SORTED = [
    (record(images=[file("a_00001_.png")]), "images", "image/png"),
    (record(images=[file("a.WEBP")], animated=[True]), "images", "image/webp"),
    (record(images=[file("a_00001_.mp4")], animated=[True]), "videos", "video/mp4"),
    (record(gifs=[file("a.mp4", format="video/h264-mp4", frame_rate=16.0)]), "videos", "video/mp4"),
    (record(gifs=[file("a.gif", format="image/gif")]), "images", "image/gif"),
    (record(gifs=[file("a.new", format="video/new-codec")]), "videos", "video/new-codec"),
    (record(audio=[file("a.flac")]), "audio", "audio/flac"),
    (record(**{"3d": [file("a.glb")]}), "files", "model/gltf-binary"),
    (record(result=["mesh/a.obj", None, None]), "files", "model/obj"),
    (record(latents=[file("a.latent")]), "files", "application/octet-stream"),
    (record(files=[file("noend", format="video/\nx")]), "files", "application/octet-stream"),
]


@pytest.mark.parametrize(("history", "group", "mime"), SORTED)
def test_a_file_is_sorted_by_what_it_is(history: dict[str, Any], group: str, mime: str) -> None:
    found = outputs.read(history).files
    assert [(each.group, each.mime) for each in found] == [(group, mime)]


def test_a_mesh_that_is_named_by_its_path_lies_in_a_folder() -> None:
    found = outputs.read(record(result=["mesh/a.obj"])).files[0]
    assert (found.output.subfolder, found.output.filename) == ("mesh", "a.obj")


def test_a_video_of_save_video_stands_among_the_images_too_for_older_clients() -> None:
    core = outputs.read(record(images=[file("a.mp4")])).files[0]
    suite = outputs.read(record(gifs=[file("a.mp4")])).files[0]
    picture = outputs.read(record(images=[file("a.png")])).files[0]
    assert core.groups(legacy=True) == ("videos", "images")
    assert core.groups(legacy=False) == ("videos",)
    assert suite.groups(legacy=True) == ("videos",), "worker-comfyui leaves these out"
    assert picture.groups(legacy=True) == ("images",)


def test_previews_are_left_out_and_no_file_comes_twice() -> None:
    shown = [file("a.png"), file("b.png", type="temp"), file("a.png"), file("a.png", subfolder="x")]
    found = outputs.read({"outputs": {"9": {"images": shown}, "10": {"images": [file("a.png")]}}})
    assert [(each.output.node, each.output.subfolder) for each in found.files] == [("9", ""), ("9", "x")]


def test_texts_say_which_node_showed_them() -> None:
    assert outputs.read(record(text=["one", "two", 3])).texts == [
        {"node": "9", "text": "one"},
        {"node": "9", "text": "two"},
    ]


@pytest.mark.parametrize(
    "odd", [None, [], {"outputs": []}, {"outputs": {"9": []}}, record(images="x"), record(images=[{"a": 1}])]
)
def test_what_cannot_be_understood_is_passed_over(odd: Any) -> None:
    assert outputs.read(odd) == outputs.Outputs()


def test_the_node_that_raised_is_named() -> None:
    data = {"node_id": "3", "node_type": "KSampler", "exception_message": "out of\nmemory"}
    status = {"messages": [["execution_start", {}], ["execution_error", data]]}
    (problem,) = answers.outcome("id", {"status": status}).problems
    assert problem.raised is not None
    assert outputs.failure(problem.raised) == (
        r"Workflow execution error: Node Type: KSampler, Node ID: 3, Message: out of\nmemory"
    )
