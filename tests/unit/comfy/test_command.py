"""podkiln-comfy against a ComfyUI that answers as the real one does, and fails as it may."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from fakes.comfyui import PNG, ComfyUI, Faults
from images import ROOT
from registries import free_port

from comfy import client, command
from comfy.failure import CANNOT_SAVE, FAILED, IMAGE_UNREADABLE, TIMED_OUT, UNREACHABLE, ComfyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKFLOW: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "old.png"}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "image": ["1", 0]}, "_meta": {"title": "Paint"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    "5": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    "6": {"class_type": "ShowText", "inputs": {}},
}


@pytest.fixture
def comfyui() -> Iterator[ComfyUI]:
    with ComfyUI() as server:
        yield server


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(WORKFLOW))
    return path


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_ASK_AGAIN", 0.2)
    monkeypatch.setattr(client, "_PAUSE", 0.05)
    monkeypatch.setattr(client, "_PATIENCE", 0.5)
    for name in ("WEB_USER", "WEB_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def run(comfyui: ComfyUI, saved: Path, *words: str) -> int:
    out = str(saved.parent / "out")
    return command.main(["run", str(saved), "--server", comfyui.url, "--out", out, *words])


def picture(folder: Path, content: bytes = PNG, name: str = "cat.png") -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def test_a_workflow_runs_with_a_picture_and_its_output_is_saved(
    comfyui: ComfyUI, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(comfyui, saved, "--image", picture(saved.parent), "--set", "3.seed=42") == 0
    sent = comfyui.prompts[0]["prompt"]
    assert (sent["1"]["inputs"]["image"], sent["3"]["inputs"]["seed"]) == ("cat.png", 42)
    assert comfyui.inputs == {"/cat.png": PNG}
    shown = capsys.readouterr()
    path = saved.parent / "out" / "night" / "SaveImage_4.png"
    assert shown.out == f"{path}\n"
    assert path.read_bytes() == PNG + b"night"
    assert "node 3 (Paint)" in shown.err
    assert "done in" in shown.err


def test_the_result_can_be_had_as_json_with_previews(
    comfyui: ComfyUI, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(comfyui, saved, "--image", picture(saved.parent), "--json", "--temp") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == 1
    assert said["uploads"] == {"1.image": "cat.png"}
    assert said["texts"] == {"6": ["seen"]}
    assert [(row["node"], row["type"]) for row in said["outputs"]] == [("4", "output"), ("5", "temp")]


def test_the_name_that_comfyui_gave_is_the_one_that_is_used(comfyui: ComfyUI, saved: Path) -> None:
    comfyui.inputs["/cat.png"] = b"another cat"
    assert run(comfyui, saved, "--image", picture(saved.parent)) == 0
    assert comfyui.prompts[0]["prompt"]["1"]["inputs"]["image"] == "cat (1).png"


def test_a_picture_comes_from_an_address(comfyui: ComfyUI, saved: Path) -> None:
    url = f"{comfyui.url}/view?filename=dog.png&subfolder=signed"
    assert run(comfyui, saved, "--image", url) == 0
    assert comfyui.inputs == {"/view.png": PNG + b"signed"}


def test_uploading_alone_prints_the_names(
    comfyui: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["upload", "--server", comfyui.url, "--subfolder", "faces", picture(tmp_path)]
    assert command.main(words) == 0
    assert command.main([*words, "--overwrite"]) == 0
    assert capsys.readouterr().out == "faces/cat.png\n" * 2


def test_a_cut_websocket_is_connected_anew(comfyui: ComfyUI, saved: Path) -> None:
    comfyui.faults.drop_socket = True
    assert run(comfyui, saved) == 0
    assert comfyui.connections > 1


def test_the_history_is_asked_when_the_websocket_says_nothing(comfyui: ComfyUI, saved: Path) -> None:
    comfyui.faults.silent = True
    assert run(comfyui, saved) == 0


def test_the_login_is_sent_to_comfyui(comfyui: ComfyUI, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comfyui.faults.login = ("me", "secret")
    with pytest.raises(ComfyError, match="wants a login: set WEB_USER and WEB_PASSWORD"):
        run(comfyui, saved)
    monkeypatch.setenv("WEB_USER", "me")
    monkeypatch.setenv("WEB_PASSWORD", "secret")
    assert run(comfyui, saved, "--image", picture(saved.parent)) == 0


FAILURES = [
    (
        Faults(forget=True, drop_socket=True),
        "has neither run nor kept the prompt",
        FAILED,
    ),
    (Faults(forget=True), "has neither run nor kept the prompt", FAILED),
    (Faults(error="out of\nmemory"), r"failed in node 3 \(KSampler\): RuntimeError: out of memory$", FAILED),
    (Faults(error="wide " * 1000), r"^.{1,500} …$", FAILED),
    (Faults(endless=True), "has not ended after 0 s and was stopped", TIMED_OUT),
]


@pytest.mark.parametrize(("faults", "said", "code"), FAILURES)
def test_a_prompt_that_fails_is_said(
    comfyui: ComfyUI, saved: Path, faults: Faults, said: str, code: int
) -> None:
    comfyui.faults = faults
    with pytest.raises(ComfyError, match=said) as caught:
        run(comfyui, saved, "--timeout", "0.3" if faults.endless else "20")
    assert caught.value.exit_code == code
    assert not (saved.parent / "out").exists()


def test_a_prompt_that_takes_too_long_is_taken_out_of_the_queue(comfyui: ComfyUI, saved: Path) -> None:
    comfyui.faults.endless = True
    with pytest.raises(ComfyError):
        run(comfyui, saved, "--timeout", "0.3")
    assert comfyui.cancelled == [comfyui.prompts[0]["prompt_id"]]
    assert not comfyui.running


def test_an_interrupted_command_takes_its_prompt_along(comfyui: ComfyUI, saved: Path) -> None:
    comfyui.faults.endless = True
    argv = [sys.executable, "scripts/__main__.py", "comfy", "run", str(saved), "--server", comfyui.url]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 20
        while not comfyui.running and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert comfyui.cancelled == [comfyui.prompts[0]["prompt_id"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"7": {"class_type": "Gone", "inputs": {}}}, "refused the workflow: Node 'Gone' not found"),
        (
            {"3": {"class_type": "KSampler", "inputs": {"seed": "none"}}},
            r"; node 3 \(KSampler\): Failed to convert an input value to a INT value \(seed, none\)",
        ),
    ],
)
def test_a_refused_workflow_is_said_with_its_nodes(
    comfyui: ComfyUI, saved: Path, change: dict[str, Any], said: str
) -> None:
    saved.write_text(json.dumps({**WORKFLOW, **change}))
    with pytest.raises(ComfyError, match=said) as caught:
        run(comfyui, saved)
    assert caught.value.exit_code == FAILED


def test_no_comfyui_is_said(saved: Path) -> None:
    with pytest.raises(ComfyError, match=r"cannot be reached at http://127\.0\.0\.1:.*refused") as caught:
        command.main(["run", str(saved), "--server", f"http://127.0.0.1:{free_port()}"])
    assert caught.value.exit_code == UNREACHABLE


def test_a_server_that_is_no_address_is_said(saved: Path) -> None:
    for server in ("localhost:8188", "http://me:pw@host:1", "ftp://host"):
        with pytest.raises(ComfyError, match="is not an address"):
            command.main(["run", str(saved), "--server", server])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("/none/cat.png", "/none/cat.png cannot be read: No such file"),
        ("{url}/nothing", "/nothing answers 404"),
        ("{url}/history/x", "is a page .application/json., not a picture"),
        ("http://127.0.0.1:9/x.png?sig=secret", "http://127.0.0.1/x.png cannot be fetched"),
    ],
)
def test_a_picture_that_cannot_be_had_is_said(comfyui: ComfyUI, saved: Path, source: str, said: str) -> None:
    with pytest.raises(ComfyError, match=said) as caught:
        run(comfyui, saved, "--image", source.format(url=comfyui.url))
    assert caught.value.exit_code == IMAGE_UNREADABLE
    assert "secret" not in str(caught.value)
    assert not comfyui.prompts


def test_a_picture_that_is_too_large_for_comfyui_is_said(comfyui: ComfyUI, saved: Path) -> None:
    with pytest.raises(ComfyError, match=r"--max-upload-size=MB in COMFYUI_ARGS raises that"):
        run(comfyui, saved, "--image", picture(saved.parent, bytes(2 << 20)))


def test_what_cannot_be_saved_is_said(comfyui: ComfyUI, saved: Path) -> None:
    (saved.parent / "out").write_text("in the way")
    with pytest.raises(ComfyError, match="cannot be written") as caught:
        run(comfyui, saved)
    assert caught.value.exit_code == CANNOT_SAVE


def test_an_output_never_leads_out_of_its_folder(tmp_path: Path) -> None:
    output = client.Output("4", "../../etc/passwd", "/../a/../..", "output")
    assert command._place(tmp_path, output) == tmp_path / "a" / "passwd"


def test_without_a_server_the_pods_own_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODKILN_RUN", str(tmp_path))
    (tmp_path / "comfyui.args").write_text("--listen=127.0.0.1\0--port=18188\0")
    assert command._of_this_pod() == "http://127.0.0.1:18188"
    (tmp_path / "comfyui.args").write_text("--listen\0--port=1\0--tls-certfile=c\0")
    assert command._of_this_pod() == "https://127.0.0.1:1"
