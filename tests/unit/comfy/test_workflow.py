"""Reading a workflow, and naming its inputs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy import workflow
from comfy.failure import USAGE, WORKFLOW_UNREADABLE, ComfyError
from comfy.workflow import Target

NODES: dict[str, Any] = {
    "10": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Face"}},
    "9": {"class_type": "LoadImage", "inputs": {"image": "b.png"}, "_meta": {"title": "Pose"}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "model": ["4", 0]}},
    "5": {"class_type": "LoadVideo", "inputs": {"file": "c.mp4"}},
}


def test_a_workflow_may_lie_in_the_envelope_that_is_sent_to_comfyui() -> None:
    for sent in (
        NODES,
        {"prompt": NODES, "client_id": "x"},
        {"input": {"workflow": NODES}},
        {"input": {"prompt": NODES}, "id": "x"},
        {"workflow": NODES},
        {"input": NODES},
        {**NODES, "version": 0.4, "extra_data": {}, "extra": None},
    ):
        assert workflow.parse(json.dumps(sent).encode(), "w.json") == workflow.Workflow(NODES)


def test_a_node_may_be_called_as_an_envelope_is() -> None:
    nodes = {"input": NODES["3"], "prompt": NODES["9"]}
    assert workflow.parse(json.dumps(nodes).encode(), "w.json").nodes == nodes


def test_pictures_may_come_with_a_workflow() -> None:
    images = [
        {"name": "a.png", "image": "QQ=="},
        {"name": "b.png", "image": "data:image/png;base64,QQ=="},
        {"name": "c.png", "image": "https://files.test/c.png"},
    ]
    sent = json.dumps({"input": {"workflow": NODES, "images": images}}).encode()
    assert [each.source for each in workflow.parse(sent, "w.json").pictures] == [
        "data:;base64,QQ==",
        "data:image/png;base64,QQ==",
        "https://files.test/c.png",
    ]
    renamed = workflow.renamed(NODES, {"a.png": "a (1).png", "m": "no"})
    assert (renamed["10"]["inputs"], NODES["10"]["inputs"]) == ({"image": "a (1).png"}, {"image": "a.png"})


def test_nodes_that_give_pictures_to_the_websocket_alone_are_known() -> None:
    kinds = ["SaveImageWebsocket", "ETN_SendImageWebSocket", "LoadImageFromWebsocket", "SaveImage"]
    nodes = {kind: {"class_type": kind, "inputs": {}} for kind in kinds}
    assert workflow.pictured(nodes) == {"SaveImageWebsocket", "ETN_SendImageWebSocket"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "w.json is not JSON"),
        ('{"nodes": [], "links": []}', "w.json is saved for the editor"),
        ("[]", "w.json holds no nodes"),
        ("{}", "w.json holds no nodes"),
        ('{"3": {"inputs": {}}}', "w.json: node 3 has no class_type and inputs"),
        ('{"3": {"class_type": "A", "inputs": []}}', "w.json: node 3 has no class_type and inputs"),
        ('{"3": {"class_type": "A", "inputs": {}, "_meta": 1}}', "w.json: node 3 has no class_type"),
        ("[" * 100_000, "w.json is not JSON"),
        ('{"input": {"workflow": {"nodes": [], "links": []}}}', "w.json is saved for the editor"),
        ('{"input": {"workflow": {}}}', "w.json holds no nodes"),
        ('{"input": {"input": {"input": {"input": {"input": {}}}}}}', "w.json: node input has no class_type"),
        ('{"input": {"images": [7], "workflow": {}}}', "an entry of images has no name and image"),
        ('{"a\\n\\u001b": 1}', r"w.json: node a\\n\\x1b has no class_type"),
    ],
)
def test_what_cannot_be_run_is_said(text: str, said: str) -> None:
    with pytest.raises(ComfyError, match=said) as caught:
        workflow.parse(text.encode(), "w.json")
    assert caught.value.exit_code == WORKFLOW_UNREADABLE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3.seed=42", 42),
        ("KSampler.seed=true", True),
        ("3.seed=a lake", "a lake"),
        ("3.seed=a=b", "a=b"),
        ('3.seed="7"', "7"),
        ("3.seed=", ""),
    ],
)
def test_a_value_is_json_or_text(text: str, value: object) -> None:
    assert workflow.assignment(NODES, text, "--set") == (Target("3", "seed"), value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed=1", "is not NODE.INPUT=VALUE"),
        ("3.seed", "is not NODE.INPUT=VALUE"),
        ("KSampled.seed=1", "no node 'KSampled'; did you mean KSampler"),
        ("3.sed=1", r"node 3 \(KSampler\) has no input 'sed'; did you mean seed"),
        ("LoadImage.image=x", "'LoadImage' is 10, 9: name one by its number"),
    ],
)
def test_an_input_that_is_not_there_is_said(text: str, said: str) -> None:
    with pytest.raises(ComfyError, match=said) as caught:
        workflow.assignment(NODES, text, "--set")
    assert caught.value.exit_code == USAGE


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["x.png"], [("9.image", "x.png")]),
        (["x.png", "y.png"], [("9.image", "x.png"), ("10.image", "y.png")]),
        (["x.png", "Pose=y.png"], [("10.image", "x.png"), ("9.image", "y.png")]),
        (["10=https://a.test/?k=v"], [("10.image", "https://a.test/?k=v")]),
        (["https://a.test/?k=v"], [("9.image", "https://a.test/?k=v")]),
        (["/tmp/a=b.png"], [("9.image", "/tmp/a=b.png")]),
        (["5.file=clip.mp4"], [("5.file", "clip.mp4")]),
        (["photo=1.png"], [("9.image", "photo=1.png")]),
        (["Pose=photo=1.png"], [("9.image", "photo=1.png")]),
        (["A=B=x.png"], [("11.image", "x.png")]),
        (["data:image/png;base64,QQ=="], [("9.image", "data:image/png;base64,QQ==")]),
        (["Pose=data:image/png;base64,QQ=="], [("9.image", "data:image/png;base64,QQ==")]),
        (["../a=b.png"], [("9.image", "../a=b.png")]),
        (["5.file=1.mp4"], [("9.image", "5.file=1.mp4")]),
    ],
)
def test_pictures_go_to_the_nodes_that_load_them(given: list[str], found: list[tuple[str, str]]) -> None:
    """There are files called photo=1.png and 5.file=1.mp4."""
    nodes = {**NODES, "11": {**NODES["9"], "_meta": {"title": "A=B"}}}
    places = workflow.places(nodes, given, "--image", {"photo=1.png", "5.file=1.mp4"}.__contains__)
    assert [(str(target), source) for target, source in places] == found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a.png", "b.png", "c.png"], r"--image c.png: no node that loads an image is left for it \(of 2\)"),
        (["Nose=a.png"], "is not FILE, NODE=FILE or NODE.INPUT=FILE"),
        (["5=a.png"], r"node 5 \(LoadVideo\) has no input 'image'"),
        (["9="], "is not FILE"),
    ],
)
def test_a_picture_without_a_place_is_said(given: list[str], said: str) -> None:
    with pytest.raises(ComfyError, match=said):
        workflow.places(NODES, given, "--image")


def test_the_workflow_that_was_read_stays_as_it_is() -> None:
    changed = workflow.with_values(NODES, {Target("3", "seed"): 9})
    assert (changed["3"]["inputs"]["seed"], NODES["3"]["inputs"]["seed"]) == (9, 1)
