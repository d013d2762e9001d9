"""InfCam's node as far as it goes without torch: what is refused, what its process is given and says.

That its frames are upstream's is shown by bench/own_infcam.py, in a Python that has torch.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nodes import infcam
from nodes.infcam import camera_path, job, node, process
from nodes.infcam.pod_facts import MEMORY_MODES, NodeError
from podkiln.config import catalog

NODE = infcam.NODE_CLASS_MAPPINGS["PodkilnInfCam"]
WISHES = job.Wishes(prompt="a room")
STILL = json.dumps([[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]] * 2)


def test_the_node_is_one_that_comfyui_understands() -> None:
    inputs = NODE.INPUT_TYPES()
    assert inputs["required"]["camera_path"][0] == [*camera_path.PRESETS]
    assert inputs["optional"]["memory_mode"][0] == ["auto", *MEMORY_MODES]
    assert all(len(each) == 2 and each[1]["tooltip"] for part in inputs.values() for each in part.values())
    assert NODE.CATEGORY.startswith("podkiln/")
    assert callable(getattr(NODE, NODE.FUNCTION))
    assert infcam.NODE_DISPLAY_NAME_MAPPINGS.keys() == infcam.NODE_CLASS_MAPPINGS.keys()


def test_the_nodes_inputs_are_wishes() -> None:
    inputs = NODE.INPUT_TYPES()
    given = {
        name: description[1].get("default", "")
        for part in inputs.values()
        for name, description in part.items()
        if name not in ("frames", "memory_mode")
    }
    assert node.wishes_of(**given) == replace(WISHES, prompt="")


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"frames": 80}, 100, "InfCam films 5, 9, 13 ... or 81 frames, not 80"),
    ({"frames": 85}, 100, "not 85"),
    ({"frames": 1}, 100, "not 1"),
    ({}, 80, "InfCam needs 81 frames, and the video has 80: give a longer one, or ask for fewer"),
    ({"width": 830}, 81, "InfCam's width is a multiple of 16, which 830 is not"),
    ({"height": 0}, 81, "InfCam's height is a multiple of 16"),
    ({"preset": "roll"}, 81, "'roll' is no camera path"),
    ({"own_path": "[]"}, 81, "The camera path has to be a list of 81 matrices"),
]


@pytest.mark.parametrize(("wishes", "frames", "sentence"), REFUSED)
def test_what_upstream_cannot_do_is_refused(wishes: dict[str, Any], frames: int, sentence: str) -> None:
    with pytest.raises(NodeError, match=sentence):
        job.check(replace(WISHES, **wishes), frames)


def test_what_is_missing_is_said_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PODKILN_INFCAM", raising=False)
    monkeypatch.setenv("WORKSPACE", str(tmp_path))
    asked: dict[str, Any] = {"camera_path": "pan left", "prompt": "a room", "num_frames": 5}
    with pytest.raises(NodeError, match=r"PODKILN_INFCAM is not set.*own-nodes\.md"):
        NODE().film(frames=[None] * 5, **asked)
    (tmp_path / "inference_infcam.py").touch()
    monkeypatch.setenv("PODKILN_INFCAM", str(tmp_path))
    with pytest.raises(NodeError, match=r"InfCam needs infcam/InfCam/step35000.ckpt.*ENABLE_INFCAM=1"):
        NODE().film(frames=[None] * 5, **asked)
    assert "torch" not in sys.modules


def test_weights_are_looked_for_where_the_catalogue_puts_them() -> None:
    files = catalog.load()["infcam"].model.files
    assert {file.destination for file in files} == set(job.WEIGHTS.values())


def prepared(tmp_path: Path, wishes: job.Wishes) -> dict[str, Any]:
    """Prepare a job below `tmp_path`; returns its request."""
    code, folder = tmp_path / "code", tmp_path / "job"
    cameras = code / "sample_data/cameras/camera_extrinsics_10types.json"
    cameras.parent.mkdir(parents=True)
    cameras.write_text('{"frame0": "upstream\'s"}')
    folder.mkdir()
    weights = {name: tmp_path / "models" / name for name in job.WEIGHTS.values()}
    request = job.prepare(folder, wishes, weights, code, "model_full_load")
    found = json.loads(request.read_text())
    assert isinstance(found, dict)
    return found


def test_a_job_looks_to_upstreams_script_like_its_own_folder(tmp_path: Path) -> None:
    prompt = '2 "chairs",\na room'
    asked = prepared(
        tmp_path, replace(WISHES, prompt=prompt, preset="arc right", find_intrinsics=False, zoom=1.5)
    )
    folder = tmp_path / "job"
    assert (asked["code"], asked["mode"]) == (str(tmp_path / "code"), "model_full_load")
    words = asked["arguments"]
    values = dict(zip(words[::2], words[1::2], strict=True))
    assert values["--cam_type"] == "10"
    assert values["--zoom_factor"] == "1.5"
    assert values["--num_frames"] == "81"
    for name in ("--ckpt_path", "--camera_extrinsics_path", "--metadata_file_name"):
        assert (folder / values[name]).is_symlink() or (folder / values[name]).is_file()
    checkpoint = (folder / values["--ckpt_path"]).readlink()
    assert checkpoint == tmp_path / "models/infcam/InfCam/step35000.ckpt"
    with (folder / "metadata.csv").open(newline="") as file:
        assert [*csv.DictReader(file)] == [{"file_name": "source.mp4", "text": prompt}]
    assert (folder / "cameras.json").read_text() == '{"frame0": "upstream\'s"}'


def test_ones_own_path_takes_the_place_of_the_preset(tmp_path: Path) -> None:
    asked = prepared(tmp_path, replace(WISHES, frames=5, preset="arc right", own_path=STILL))
    words = asked["arguments"]
    assert words[words.index("--cam_type") + 1] == "1"
    assert words[-1] == "--k_from_unidepth"
    assert [*json.loads((tmp_path / "job/cameras.json").read_text())] == ["frame0", "frame4"]


def test_the_process_gets_no_tokens_and_no_packages_of_other_nodes() -> None:
    environ = {
        "PATH": "/bin",
        "HF_TOKEN": "hf_secret",
        "WEB_PASSWORD": "secret",
        "PYTHONPATH": "/of/other/nodes",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    found = process.environment(environ)
    assert found["PYTHONPATH"] == str(Path(process.__file__).parent)
    assert found.items() >= {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "HF_HUB_OFFLINE": "1"}.items()
    assert not found.keys() & {"HF_TOKEN", "WEB_PASSWORD"}


def test_the_process_has_its_own_interpreter_or_comfyuis() -> None:
    request = Path("/job/request.json")
    assert process.command(request, {})[0] == sys.executable
    assert process.command(request, {"PODKILN_INFCAM_PYTHON": sys.executable})[-2:] == [
        "infcam_runner",
        "/job/request.json",
    ]
    with pytest.raises(NodeError, match="PODKILN_INFCAM_PYTHON=/nowhere is no file"):
        process.command(request, {"PODKILN_INFCAM_PYTHON": "/nowhere"})


def ran(tmp_path: Path, text: str, interrupted: Any = lambda: None) -> list[tuple[int, int]]:
    """Run a Python text as the process; returns the steps that it told of."""
    steps: list[tuple[int, int]] = []
    process.run([sys.executable, "-c", text], {}, tmp_path, lambda *step: steps.append(step), interrupted)
    return steps


def test_steps_are_told_and_other_talk_is_not_taken_for_them(tmp_path: Path) -> None:
    lines = [
        'podkiln:{"done": 1, "of": 2}',
        " 50%",
        "podkiln:{no json",
        "podkiln:[1]",
        'podkiln:{"done": 2, "of": 2}',
    ]
    text = f"print({chr(10).join(lines)!r})"
    assert ran(tmp_path, text) == [(1, 2), (2, 2)]


ENDINGS = [
    ("""print('podkiln:{"why": "It cannot."}'); raise SystemExit(1)""", "^It cannot.$"),
    ("raise SystemExit(3)", "InfCam's process ended with status 3: what it said is in ComfyUI's log"),
    ("import os; os.kill(os.getpid(), 9)", "was killed, most likely because the pod's RAM ran out"),
]


@pytest.mark.parametrize(("text", "sentence"), ENDINGS)
def test_a_process_that_fails_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(NodeError, match=sentence):
        ran(tmp_path, text)


def test_the_stop_button_ends_the_process(tmp_path: Path) -> None:
    class Stopped(BaseException):
        """As ComfyUI's is no Exception."""

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        ran(tmp_path, "import time; print('up', flush=True); time.sleep(600)", stop)


# Starts a child that keeps its stdout open, and says which.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
"""


def gone(number: int) -> bool:
    """Tell whether a process ends within five seconds; one that nobody waits for is a zombie."""
    late = time.monotonic() + 5
    while time.monotonic() < late:
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("end", ["stopped", "killed", "done"])
def test_what_the_process_has_started_ends_with_it(tmp_path: Path, end: str) -> None:
    """It held the node for ever: its stdout is the process's own."""
    rest = {"stopped": "time.sleep(600)", "killed": "import os; os.kill(os.getpid(), 9)", "done": ""}[end]
    child = tmp_path / "child"

    def interrupted() -> None:
        if end == "stopped" and child.is_file() and child.read_text():
            raise RuntimeError("stopped")

    text = PARENT.replace("print(child.pid", f"open({str(child)!r}, 'w').write(str(child.pid)); print(1")
    expected = {"stopped": (RuntimeError, "stopped"), "killed": (NodeError, "was killed")}.get(end)
    with pytest.raises(expected[0], match=expected[1]) if expected else contextlib.nullcontext():
        ran(tmp_path, f"{text}{rest}", interrupted)
    assert gone(int(child.read_text()))


def test_the_process_ends_with_comfyui_and_takes_its_own_along() -> None:
    text = f"from infcam_runner import parent; parent.watch(){PARENT}time.sleep(600)"
    environ = {**os.environ, "PYTHONPATH": str(Path(process.__file__).parent)}
    words = [sys.executable, "-c", text]
    with subprocess.Popen(
        words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as comfyuis:
        assert comfyuis.stdin
        assert comfyuis.stdout
        child = int(comfyuis.stdout.readline())
        comfyuis.stdin.close()
        assert comfyuis.wait(timeout=10) == -9
    assert gone(child)
    in_a_shell = subprocess.run(
        [sys.executable, "-c", "from infcam_runner import parent; parent.watch(); print(1)"],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert in_a_shell.stdout == "1\n", "its session is another's"
