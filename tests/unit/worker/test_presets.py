"""A request for a preset becomes the workflow, or is refused field by field."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from unit.worker.test_job import WORKFLOW
from unit.worker.test_media import JPEG, MP4

from comfy.workflow import Target
from pod.errors import PodError
from podkiln.config import catalog, presets, workflow
from worker import command, request
from worker import presets as filling
from worker.errors import JobError
from worker.handler import Worker
from worker.job_file import JobFile
from worker.preset_inputs import Input
from worker.presets import Presets

if TYPE_CHECKING:
    from pathlib import Path

    from servers.comfyui import ComfyUI

    from worker.job import Place

MODELS = catalog.load()
SHIPPED = presets.load()
SCAIL = {"preset": "scail", "prompt": "she dances", "pose_video": MP4, "reference_image": JPEG}


def made(name: str, *nodes: str) -> filling.Preset:
    """Return a shipped preset as an image with some custom nodes has it."""
    return filling.Preset.from_json(presets.row(SHIPPED[name], MODELS, nodes), presets.data(name))


@pytest.fixture
def known(tmp_path: Path) -> Presets:
    chosen = {name: made(name) for name in ("sdxl-base", "scail", "flux2-dev")}
    return Presets(chosen, root=tmp_path, run=tmp_path)


def refused(known: Presets, **given: Any) -> dict[str, Any]:
    with pytest.raises(JobError) as wrong:
        request.parse(given, known=known)
    return wrong.value.answer


def test_a_request_fills_the_workflow(known: Presets) -> None:
    given = {
        "preset": "sdxl-base",
        "prompt": "a kite",
        "seed": 7,
        "width": 512.0,
        "cfg": 5,
        "sampler": "euler",
    }
    read = request.parse(given, known=known)
    expected = presets.data("sdxl-base")
    expected["2"]["inputs"]["text"] = "a kite"
    expected["4"]["inputs"]["width"] = 512
    expected["5"]["inputs"] |= {"seed": 7, "cfg": 5, "sampler_name": "euler"}
    assert read.nodes == expected
    assert read.said == {"preset": "sdxl-base", "seed": 7}


def test_one_input_may_go_to_several_nodes(known: Presets) -> None:
    nodes = request.parse({"preset": "flux2-dev", "prompt": "x", "width": 512}, known=known).nodes
    assert [nodes[number]["inputs"]["width"] for number in ("6", "9")] == [512, 512]


def test_files_are_uploaded_under_the_names_that_the_workflow_has(known: Presets) -> None:
    read = request.parse(SCAIL, known=known)
    names = {each.name: each.source for each in read.pictures}
    assert names[read.nodes["7"]["inputs"]["file"]] == f"data:;base64,{MP4}"
    assert names[read.nodes["6"]["inputs"]["image"]] == f"data:;base64,{JPEG}"
    assert len(names) == 2


@pytest.mark.parametrize("said", [{}, {"seed": -1}, {"seed": None}])
def test_a_seed_is_drawn_and_returned_where_none_is_given(known: Presets, said: dict[str, Any]) -> None:
    both = [request.parse({"preset": "sdxl-base", "prompt": "x", **said}, known=known) for _ in range(2)]
    assert both[0].said["seed"] != both[1].said["seed"]
    assert [each.nodes["5"]["inputs"]["seed"] for each in both] == [each.said["seed"] for each in both]
    assert 0 <= both[0].said["seed"] < 1 << 53


def test_where_a_preset_is_fixed_a_prompt_is_a_request(known: Presets) -> None:
    fixed = replace(known, fixed="sdxl-base")
    assert request.parse({"prompt": "a kite"}, known=fixed).nodes["2"]["inputs"]["text"] == "a kite"
    other = request.parse({"preset": "flux2-dev", "prompt": "a kite"}, known=fixed)
    assert other.said["preset"] == "flux2-dev"
    workflows = request.parse({"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}}, known=fixed)
    assert workflows.said == {}


def test_without_one_it_is_not(known: Presets) -> None:
    assert refused(known, prompt="a kite") == {"error": "Missing 'workflow' parameter"}


def test_each_field_that_is_wrong_is_named_in_one_error(known: Presets) -> None:
    wrong = {
        "promt": "x",
        "width": 500,
        "height": 90,
        "steps": True,
        "cfg": "7",
        "seed": 1.5,
        "sampler": "eular",
    }
    assert refused(known, preset="sdxl-base", **wrong) == {
        "error": "The request does not fit the preset sdxl-base: 8 of its fields are wrong",
        "details": [
            "prompt: it is missing (What is to be seen).",
            "seed: 1.5 is no whole number.",
            "width: 500 is no multiple of 8: give 496 or 504.",
            "height: 90 is not from 256 to 2048.",
            "steps: expected a whole number, not true.",
            "cfg: expected a number, not a text.",
            (
                "sampler: eular is not one of euler, euler_ancestral, dpmpp_2m, dpmpp_2m_sde, dpmpp_sde, "
                "ddim, uni_pc."
            ),
            "promt: the preset has no such input: did you mean prompt?",
        ],
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompt": ["x"]}, "prompt: expected a text, not a list."),
        ({"prompt": "  "}, "prompt: it is empty."),
        ({"prompt": "x" * 10_001}, "prompt: it has 10001 characters, and 10000 are the most."),
        ({"width": float("nan")}, "width: expected a whole number, not nan."),
        ({"width": float("inf")}, "width: expected a whole number, not inf."),
        ({"seed": -2}, "seed: -2 is not from 0 to 18446744073709551615."),
        ({"seed": (1 << 64) - 1}, None),
        ({"seed": 1 << 64}, "seed: 18446744073709551616 is not from 0 to 18446744073709551615."),
        ({"cfg": 0.5}, "cfg: 0.5 is not from 1.0 to 30.0."),
        (
            {"pose_video": 5},
            "pose_video: expected a text: an http(s) address, a data: URI, base64, or the path",
        ),
        ({"pose_video": "file:///x"}, "pose_video: file is no kind of address that is fetched"),
        ({"weights": "int8"}, "weights: int8 is not one of fp8, bf16."),
    ],
)
def test_what_does_not_fit_is_said(known: Presets, given: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert request.parse({**SCAIL, **given}, known=known).said["seed"] == given["seed"]
        return
    details = refused(known, **SCAIL | given)["details"]
    assert len(details) == 1
    assert details[0].startswith(said)


def test_thousands_of_unknown_fields_are_not_all_repeated(known: Presets) -> None:
    many = {f"field_{number}": 1 for number in range(5000)}
    assert len(refused(known, **SCAIL, **many)["details"]) == 20


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"preset": "sdxl"}, "This worker has no preset sdxl: did you mean sdxl-base?"),
        ({"preset": 7}, "This worker has no preset 7: there are sdxl-base, scail, flux2-dev."),
        ({"preset": "scail", "workflow": {}}, "'preset' and 'workflow' exclude each other: give one of them"),
    ],
)
def test_a_preset_that_there_is_not_is_refused(known: Presets, given: dict[str, Any], said: str) -> None:
    assert refused(known, **given) == {"error": said}


def test_fields_of_the_earlier_handler_are_taken_and_said_to_do_nothing(known: Presets) -> None:
    read = request.parse({**SCAIL, "upload_url": "https://example.com/put", "timeout": 900}, known=known)
    assert read.said["notes"] == [
        "upload_url is not used: the result comes in the answer.",
        "timeout is not used: the platform ends a job by `policy.executionTimeout` beside `input`.",
    ]


# --- Poses from a driving video


def test_a_driving_video_takes_the_place_of_poses(tmp_path: Path) -> None:
    known = Presets({"scail": made("scail", "scail-pose2")}, root=tmp_path, run=tmp_path)
    given = {key: value for key, value in SCAIL.items() if key != "pose_video"}
    nodes = request.parse({**given, "driving_video": MP4}, known=known).nodes
    assert nodes["12"]["inputs"]["pose_video"] == ["22", 0]
    assert nodes["12"]["inputs"]["width"] == 512
    assert nodes["17"]["inputs"]["file"].startswith("driving_video-")
    assert nodes["23"]["inputs"]["length"] == nodes["12"]["inputs"]["length"] == 81
    nodes = request.parse({**given, "driving_video": MP4, "length": 161}, known=known).nodes
    assert nodes["23"]["inputs"]["length"] == nodes["12"]["inputs"]["length"] == 161, "no more is looked at"
    assert not {"7", "8"} & nodes.keys()
    both = refused(known, **SCAIL, driving_video=MP4)["details"]
    assert both == ["pose_video: driving_video takes its place: give one of them."]
    (neither,) = refused(known, **given)["details"]
    assert neither.startswith("pose_video: it is missing, and so is driving_video: one of them is needed")
    schema = filling.schema(known.known["scail"])
    assert schema["required"] == ["prompt", "reference_image"]
    assert schema["allOf"] == [{"oneOf": [{"required": ["pose_video"]}, {"required": ["driving_video"]}]}]


def test_without_the_node_that_draws_them_it_is_refused(known: Presets) -> None:
    (said,) = refused(known, **{**SCAIL, "pose_video": None}, driving_video=MP4)["details"]
    assert said == "driving_video: it needs node:scail-pose2, which this image does not have."
    assert "driving_video" not in filling.schema(known.known["scail"])["properties"]


# --- Models that are not there


def decided(known: Presets, tmp_path: Path, *, enabled: bool) -> Path:
    """Let a start have decided; returns where the checkpoint belongs."""
    volume = {"workspace": f"{tmp_path}/volume", "root": f"{tmp_path}/volume", "models": []}
    models = [{"id": "sdxl-base", "enabled": enabled}]
    (tmp_path / "decision.json").write_text(json.dumps({"models": models, "volume": volume}))
    file = {"folder": "checkpoints", "name": "sdxl.safetensors", "size": 1, "sha256": None, "optional": False}
    rows = [{"id": "sdxl-base", "files": [{**file, "source": {}}]}]
    (tmp_path / "models.json").write_text(json.dumps({"schema": 1, "models": rows}))
    (tmp_path / "folders.json").write_text(
        json.dumps({"schema": 1, "folders": {"checkpoints": ["checkpoints"]}})
    )
    return tmp_path / "volume/models/checkpoints/sdxl.safetensors"


def test_a_model_that_is_missing_is_said_with_its_variable(known: Presets, tmp_path: Path) -> None:
    decided(known, tmp_path, enabled=False)
    assert refused(known, preset="sdxl-base", prompt="x") == {
        "error": "The preset sdxl-base needs the model SDXL base 1.0, which this worker does not have: "
        "set ENABLE_SDXL_BASE=true for it."
    }


FETCHES: list[tuple[dict[str, Any] | None, str | None]] = [
    (None, None),
    ({"state": "running", "pid": os.getpid()}, None),
    ({"state": "failed", "error": "404 Not Found"}, "could not be fetched: 404 Not Found."),
    ({"state": "running", "pid": 0x7FFFFFFF}, "is missing, and nothing fetches it any more."),
    ({"state": "running", "pid": 0x7FFFFFFF, "kept": True}, None),  # start.sh begins it again
    ({"state": "failed", "kept": True}, "is missing, and nothing fetches it any more."),
]


@pytest.mark.parametrize(("record", "why"), FETCHES)
def test_one_that_is_on_its_way_is_no_reason_to_refuse(
    known: Presets, tmp_path: Path, record: dict[str, Any] | None, why: str | None
) -> None:
    decided(known, tmp_path, enabled=True)
    if record:
        row = {"model": "sdxl-base", "file": "checkpoints/sdxl.safetensors", "error": record.get("error")}
        (tmp_path / "fetch.json").write_text(json.dumps({**record, "files": [row]}))
        if record.get("kept"):
            (tmp_path / "fetch.kept").touch()
    if why:
        said = f"The model SDXL base 1.0 {why}"
        assert refused(known, preset="sdxl-base", prompt="x") == {"error": said}
    else:
        assert request.parse({"preset": "sdxl-base", "prompt": "x"}, known=known).nodes


def test_one_that_lies_on_the_volume_is_used(known: Presets, tmp_path: Path) -> None:
    file = decided(known, tmp_path, enabled=False)
    file.parent.mkdir(parents=True)
    file.touch()
    assert request.parse({"preset": "sdxl-base", "prompt": "x"}, known=known).said["preset"] == "sdxl-base"


# --- From the image's data to an answer


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The data of an image that has two presets, of which one is fixed."""
    root = tmp_path / "image"
    (root / "workflows").mkdir(parents=True)
    rows = [presets.row(SHIPPED[name], MODELS, ()) for name in ("sdxl-base", "scail")]
    data = {"schema": 1, "variant": "mine", "preset": "scail", "presets": rows}
    (root / "presets.json").write_text(json.dumps(data))
    for name in ("sdxl-base", "scail"):
        (root / "workflows" / f"{name}.api.json").write_bytes(workflow.path_of(name).read_bytes())
    return root


def test_the_image_says_which_there_are(image: Path, tmp_path: Path) -> None:
    known = Presets.load(image, tmp_path)
    assert (list(known.known), known.fixed) == (["sdxl-base", "scail"], "scail")
    assert known.known["scail"] == made("scail")


def test_an_image_without_them_has_none(tmp_path: Path) -> None:
    assert Presets.load(tmp_path, tmp_path).known == {}


@pytest.mark.parametrize("damage", ["presets.json", "workflows/scail.api.json"])
def test_a_damaged_image_is_one_sentence(image: Path, tmp_path: Path, damage: str) -> None:
    (image / damage).write_text("{")
    with pytest.raises(PodError, match=r"is damaged or of another podkiln .*: rebuild the image"):
        Presets.load(image, tmp_path)


def test_the_answer_names_preset_and_seed(comfyui: ComfyUI, place: Place, tmp_path: Path) -> None:
    inputs = {
        "picture": Input("picture", "image", (Target("1", "image"),), required=True),
        "seed": Input("seed", "integer", (Target("3", "seed"),), random=True),
    }
    small = filling.Preset("small", "Small", "For a test.", WORKFLOW, inputs)
    known = Presets({"small": small}, fixed="small", root=tmp_path, run=tmp_path)
    worker = Worker(place, JobFile(tmp_path / "jobs.json"), presets=known)
    answer = asyncio.run(worker.handle({"id": "job-1", "input": {"picture": JPEG, "seed": 5}}))
    assert (answer["preset"], answer["seed"], len(answer["images"])) == ("small", 5, 1)
    sent = comfyui.prompts[0]["prompt"]
    assert sent["3"]["inputs"]["seed"] == 5
    assert set(comfyui.inputs) == {f"/{sent['1']['inputs']['image']}"}


def test_schema_and_example_are_printed_without_the_sdk(
    image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PODKILN_ROOT", str(image))
    assert command.main(["--schema", "scail"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert command.main(["--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["scail"] == one
    assert one["properties"]["preset"] == {"const": "scail"}
    assert one["required"] == ["prompt", "pose_video", "reference_image"]
    assert one["properties"]["width"] == {
        "type": "integer", "minimum": 256, "maximum": 1280, "multipleOf": 32, "default": 512
    }  # fmt: skip
    assert one["properties"]["weights"]["enum"] == ["fp8", "bf16"]
    assert one["properties"]["weights"]["default"] == "fp8"
    assert command.main(["--example", "scail"]) == 0
    said = json.loads(capsys.readouterr().out)["input"]
    assert said["pose_video"] == "https://example.com/video.mp4"
    with pytest.raises(PodError, match="This worker has no preset scial: did you mean scail"):
        command.main(["--schema", "scial"])
