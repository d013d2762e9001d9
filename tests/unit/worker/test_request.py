"""A job's input is understood as worker-comfyui understands it, and refused in its words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy.workflow import Named
from worker import messages, request
from worker.errors import JobError

NODES: dict[str, Any] = {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a"}}}


def test_the_workflow_is_the_least_that_a_job_has() -> None:
    assert request.parse({"workflow": NODES}) == request.Request(NODES)


def test_the_input_may_be_a_text_of_json() -> None:
    assert request.parse(json.dumps({"workflow": NODES})) == request.Request(NODES)


def test_keys_that_are_not_known_are_left_alone() -> None:
    assert request.parse({"workflow": NODES, "mood": "good"}).nodes == NODES


# What the input says of a picture, and the data: URI or address that it is read from.
PICTURES = [
    ({"image": "aGk="}, "data:;base64,aGk="),
    ({"image": "data:image/webp;base64,aGk="}, "data:;base64,aGk="),
    ({"image": "/etc/passwd"}, "data:;base64,/etc/passwd"),
    ({"image": "http://10.0.0.1/x"}, "data:;base64,http://10.0.0.1/x"),
    ({"url": "https://example.com/a.png"}, "https://example.com/a.png"),
]


@pytest.mark.parametrize(("said", "source"), PICTURES)
def test_pictures_come_as_base64_a_data_uri_or_an_address(said: dict[str, str], source: str) -> None:
    read = request.parse({"workflow": NODES, "images": [{"name": "in.png", **said}]})
    assert read.pictures == (Named("in.png", source),)


@pytest.mark.parametrize("name", ["comfy_org_api_key", "api_key_comfy_org"])
def test_the_key_of_paid_nodes_has_two_names(name: str) -> None:
    read = request.parse({"workflow": NODES, name: "comfyui-123"})
    assert read.api_key == "comfyui-123"
    assert "comfyui-123" not in repr(read)


def test_the_code_of_worker_comfyui_beats_its_documentation() -> None:
    both = {"api_key_comfy_org": "documented", "comfy_org_api_key": "read"}
    assert request.parse({"workflow": NODES, **both}).api_key == "read"


def test_switches_are_true_or_false() -> None:
    read = request.parse({"workflow": NODES, "legacy_outputs": True, "refresh_worker": True})
    assert (read.legacy_outputs, read.refresh_worker, read.free) == (True, True, False)
    read = request.parse({"workflow": NODES, "refresh_worker": "free"})
    assert (read.refresh_worker, read.free) == (False, True)


def test_a_bucket_may_stand_in_the_job_or_in_its_input() -> None:
    config = {"endpointUrl": "https://s3.example.com", "accessId": "of-me", "bucketName": "mine"}
    config["accessSecret"] = "my-secret"
    beside = request.parse({"workflow": NODES, "comfy_org_api_key": "comfyui-key"}, config)
    within = request.parse({"workflow": NODES, "s3Config": config})
    assert beside.bucket == within.bucket is not None
    assert beside.secrets == ("comfyui-key", "of-me", "my-secret")


BAD_IMAGES: list[Any] = [
    "cat.png",
    {"name": "cat.png", "image": "aGk="},
    ["cat.png"],
    [{"name": "cat.png"}],
    [{"image": "aGk="}],
    [{"name": "", "image": "aGk="}],
    [{"name": "cat.png", "image": 5}],
    [{"name": "cat.png", "image": "aGk=", "url": "https://example.com"}],
]
REFUSED: list[tuple[Any, str]] = [
    (None, messages.NO_INPUT),
    ("{", messages.INVALID_JSON),
    ("[" * 100_000, messages.INVALID_JSON),
    ("\ud800", messages.INVALID_JSON),
    ([], messages.INVALID_JSON),
    ('"text"', messages.INVALID_JSON),
    ({}, messages.NO_WORKFLOW),
    ({"images": []}, messages.NO_WORKFLOW),
    *(({"workflow": NODES, "images": images}, messages.IMAGES_MALFORMED) for images in BAD_IMAGES),
    (
        {"workflow": NODES, "images": [{"name": "x", "url": "file:///etc/passwd"}]},
        f"{messages.IMAGES_MALFORMED}; a 'url' in their place begins with http:// or https://",
    ),
    ({"workflow": {}}, "input.workflow holds no nodes: save it with Export (API)."),
    (
        {"workflow": {"nodes": []}},
        "input.workflow is saved for the editor, which ComfyUI itself cannot run: save it with Export (API).",
    ),
    ({"workflow": NODES, "legacy_outputs": "yes"}, "'legacy_outputs' must be true or false"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED)
def test_what_cannot_be_used_is_refused(given: Any, said: str) -> None:
    with pytest.raises(JobError) as refused:
        request.parse(given)
    assert refused.value.answer == {"error": said}


def test_the_words_of_worker_comfyui_stay_as_clients_know_them() -> None:
    """Facts of runpod-workers/worker-comfyui at d2a5572 (5.8.5)."""
    known = {name: text for name, text in vars(messages).items() if name.isupper()}
    assert known == {
        "NO_INPUT": "Please provide input",
        "INVALID_JSON": "Invalid JSON format in input",
        "NO_WORKFLOW": "Missing 'workflow' parameter",
        "IMAGES_MALFORMED": "'images' must be a list of objects with 'name' and 'image' keys",
        "UPLOAD_FAILED": "Failed to upload one or more input images",
        "NOT_REACHABLE": "ComfyUI server ({address}) not reachable after multiple retries.",
        "JOB_FAILED": "Job processing failed",
        "INVALID_WORKFLOW": "Workflow validation failed:",
        "INVALID_NODE": "Node {node} ({kind}): {message}",
        "CHECKPOINTS": "Available checkpoint models: {names}",
        "NODE_FAILED": "Workflow execution error: Node Type: {kind}, Node ID: {node}, Message: {message}",
        "QUEUE_FAILED": "Error queuing workflow: {reason}",
        "HTTP_FAILED": "HTTP communication error with ComfyUI: {reason}",
        "UNEXPECTED": "An unexpected error occurred: {reason}",
        "NO_IMAGES": "success_no_images",
    }
