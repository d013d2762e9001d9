"""podkiln-comfy against a ComfyUI that answers as the real one does, and fails as it may."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from images import ROOT
from registries import free_port
from servers.comfyui import MISSING, PNG, ComfyUI, Faults

from comfy import command, connection, limits, prompt_run, retry, saving
from comfy.failure import CANNOT_SAVE, FAILED, IMAGE_UNREADABLE, TIMED_OUT, UNREACHABLE, ComfyError
from pod import comfyui_http

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
    monkeypatch.setattr(prompt_run, "_ASK_AGAIN", 0.2)
    monkeypatch.setattr(retry, "PAUSE", 0.05)
    monkeypatch.setattr(connection, "_PATIENCE", 0.5)
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
    with pytest.raises(ComfyError, match="requires a login: set WEB_USER and WEB_PASSWORD"):
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
    (
        Faults(error="out of\nmemory"),
        r"^The prompt failed in node 3 \(KSampler\): RuntimeError: out of memory\.$",
        FAILED,
    ),
    (Faults(error="wide " * 1000), r"^.{1,500}…\.$", FAILED),
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
    assert (saved.parent / "out").exists() == bool(faults.error), "what came out before is kept"


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
    for server in (
        "localhost:8188",
        "http://me:canary@host:1",
        "ftp://host",
        "http://[::1",
        "http://h:x/",
        "http://h/?a=canary",
    ):
        with pytest.raises(ComfyError, match="is not an address") as caught:
            command.main(["run", str(saved), "--server", server])
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("/none/cat.png", "/none/cat.png cannot be read: No such file"),
        ("{url}/nothing", "/nothing answers 404"),
        ("{url}/history/x", "is a page .application/json., not a picture"),
        ("http://127.0.0.1:9/x.png?sig=secret", "http://127.0.0.1:9/x.png.… cannot be fetched"),
        ("https://me:secret@127.0.0.1:9/x.png", "https://…@127.0.0.1:9/x.png cannot be fetched"),
        ("http://[::1", "http://\\[::1 cannot be fetched"),
        ("data:image/png;base64,secret!", "data:image/png;base64,… is not a data URI"),
        ("data:,", "data:,… is an empty picture"),
        ("data:secret", "is not a data URI: it holds no comma"),
        ("a\0b.png", r"a\\x00b.png is not the name of a file"),
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


def test_without_a_server_the_pods_own_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODKILN_RUN", str(tmp_path))
    (tmp_path / "comfyui.args").write_text("--listen=127.0.0.1\0--port=18188\0")
    assert comfyui_http.address(comfyui_http.arguments()) == "http://127.0.0.1:18188"
    (tmp_path / "comfyui.args").write_text("--listen\0--port=1\0--tls-certfile=c\0")
    assert comfyui_http.address(comfyui_http.arguments()) == "https://127.0.0.1:1"


# --- refused in part, failed in part

TWICE: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "there.png"}},
    "2": {"class_type": "LoadImage", "inputs": {"image": MISSING}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
}


def test_a_workflow_that_is_refused_in_part_is_not_done(
    comfyui: ComfyUI, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ComfyUI answers 200, runs the rest, and tells of the others in node_errors alone."""
    saved.write_text(json.dumps(TWICE))
    with pytest.raises(ComfyError) as caught:
        run(comfyui, saved, "--json")
    assert caught.value.exit_code == FAILED
    said = "Node 2 (LoadImage): Invalid image file (image - missing.png); so nothing comes out of node 4."
    assert str(caught.value) == said
    record = json.loads(capsys.readouterr().out)
    assert [row["node"] for row in record["outputs"]] == ["3"]
    assert record["errors"] == [{"node": "2", "message": f"n{said[1:-1]}"}]
    assert (saved.parent / "out" / "night" / "SaveImage_3.png").exists()


def test_each_of_several_problems_is_said(
    comfyui: ComfyUI, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved.write_text(json.dumps(TWICE))
    comfyui.faults.error = "out of memory"
    with pytest.raises(ComfyError, match="2 things failed") as caught:
        run(comfyui, saved, "--json")
    assert caught.value.exit_code == FAILED
    shown = capsys.readouterr()
    assert "podkiln: Node 2 (LoadImage): Invalid image file" in shown.err
    assert "podkiln: The prompt failed in node 3 (KSampler): RuntimeError: out of memory." in shown.err
    assert len(json.loads(shown.out)["errors"]) == 2
    assert len(json.loads(shown.out)["outputs"]) == 1, "what came out before the failure is saved"


def test_a_file_that_comfyui_does_not_give_out_costs_that_file(comfyui: ComfyUI, saved: Path) -> None:
    """As one of a result that is known from before, and was deleted since."""
    comfyui.faults.images = [{"filename": "gone.png"}, {"filename": "there.png"}]
    with pytest.raises(ComfyError, match=r"ComfyUI does not serve gone.png \(404\)\.") as caught:
        run(comfyui, saved)
    assert caught.value.exit_code == FAILED
    assert [path.name for path in (saved.parent / "out").iterdir()] == ["there.png"]


def test_a_file_that_cannot_be_saved_costs_no_other(
    comfyui: ComfyUI, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = saved.parent / "out"
    out.mkdir()
    (out / "link").symlink_to("/")
    comfyui.faults.images = [
        {"filename": "a.png"},
        {"filename": "b.png", "subfolder": "link"},
        {"filename": "c.png", "subfolder": "link"},
        {"filename": "d.png"},
    ]
    with pytest.raises(ComfyError, match="2 things failed") as caught:
        run(comfyui, saved)
    assert caught.value.exit_code == CANNOT_SAVE
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(out / "a.png"), str(out / "d.png")]
    assert "link/b.png cannot be written" in said.err


def test_pictures_of_the_websocket_that_cannot_be_saved_cost_no_other(
    comfyui: ComfyUI, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved.write_text(json.dumps(BY_SOCKET))
    out = saved.parent / "out"
    out.mkdir()
    monkeypatch.setattr(saving, "_TRIES", 2)
    (out / "SaveImageWebsocket_9_00001_.png").write_text("mine")
    with pytest.raises(ComfyError, match="File exists") as caught:
        run(comfyui, saved)
    assert caught.value.exit_code == CANNOT_SAVE
    assert "night/SaveImage_4.png" in outputs(saved)


def test_the_limit_of_time_holds_for_what_comes_out_too(
    comfyui: ComfyUI, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that sends a byte now and then would hold the command for ever."""
    comfyui.faults.images = [{"filename": "a.png"}, {"filename": "trickle.png"}]
    begun = time.monotonic()
    with pytest.raises(ComfyError, match=r"Fetching what came out has not ended after 1 s") as caught:
        run(comfyui, saved, "--timeout", "1")
    assert caught.value.exit_code == TIMED_OUT
    assert time.monotonic() - begun < 5
    assert capsys.readouterr().out.splitlines() == [str(saved.parent / "out" / "a.png")]
    assert outputs(saved) == ["a.png"]


def test_without_a_limit_what_hardly_comes_is_given_up(
    comfyui: ComfyUI, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_SLOW_SECONDS", 0.3)
    comfyui.faults.images = [{"filename": "trickle.png"}, {"filename": "b.png"}]
    with pytest.raises(ComfyError, match=r"sends trickle.png too slowly") as caught:
        run(comfyui, saved)
    assert caught.value.exit_code == FAILED
    assert outputs(saved) == ["b.png"]


def test_a_cookie_of_the_door_is_kept(comfyui: ComfyUI, saved: Path) -> None:
    """Without it each request would be a guess of a password, and wait as one."""
    comfyui.faults.cookie = "podkiln-abc=def; Path=/"
    assert run(comfyui, saved, "--image", picture(saved.parent)) == 0
    first, *others = comfyui.cookies
    assert first == ""
    assert set(others) == {"podkiln-abc=def"}


def test_a_websocket_is_not_followed_elsewhere(comfyui: ComfyUI, saved: Path) -> None:
    with ComfyUI() as other:
        comfyui.faults.answers = {"/ws": (302, {"Location": f"{other.url}/ws?clientId=x"}, b"")}
        with pytest.raises(
            ComfyError, match=r"it redirects to http://127.*; give that as --server"
        ) as caught:
            run(comfyui, saved)
        assert caught.value.exit_code == UNREACHABLE
        assert other.connections == 0


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1])
def test_a_text_that_is_too_large_is_not_read(
    comfyui: ComfyUI, saved: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(prompt_run, "_LARGEST_TEXT", 1 << 20)
    comfyui.faults.messages = ["[" * size]
    if size > 1 << 20:
        with pytest.raises(ComfyError, match="sent a text of more than 1 MiB"):
            run(comfyui, saved)
    else:
        assert run(comfyui, saved) == 0


# --- names and sizes of a server


def outputs(saved: Path) -> list[str]:
    out = saved.parent / "out"
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir())


def test_a_server_never_replaces_what_is_there(comfyui: ComfyUI, saved: Path) -> None:
    out = saved.parent / "out"
    out.mkdir()
    (out / "bashrc.txt").write_text("mine")
    (out / ".bashrc").write_text("mine")
    comfyui.faults.images = [
        {"filename": ".bashrc.txt", "subfolder": ""},
        {"filename": "authorized_keys", "subfolder": ".ssh"},
        {"filename": "../../x.png", "subfolder": "/../.."},
        {"filename": "x.png", "subfolder": "..\\"},
    ]
    assert run(comfyui, saved) == 0
    assert outputs(saved) == [
        *(".bashrc", "bashrc.txt", "bashrc_2.txt", "ssh/authorized_keys.bin", "x.png", "x_2.png"),
    ]
    assert (out / "bashrc.txt").read_text() == (out / ".bashrc").read_text() == "mine"


def test_two_outputs_of_one_name_are_two_files_and_one_told_twice_is_one(
    comfyui: ComfyUI, saved: Path
) -> None:
    one = {"filename": "a.png", "subfolder": "", "type": "output"}
    comfyui.faults.images = [one, {**one, "type": "temp"}, one, {**one, "subfolder": "./"}]
    assert run(comfyui, saved, "--temp") == 0
    assert outputs(saved) == ["PreviewImage_5.png", "a.png", "a_2.png", "a_3.png"]


def test_no_more_is_saved_than_was_allowed(comfyui: ComfyUI, saved: Path) -> None:
    with pytest.raises(ComfyError, match=r"more than 40 bytes: --max-bytes raises that\.") as caught:
        run(comfyui, saved, "--max-bytes", "40")
    assert caught.value.exit_code == CANNOT_SAVE
    assert outputs(saved) == []


def test_names_of_a_server_are_shown_on_one_line(
    comfyui: ComfyUI, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comfyui.faults.images = [{"filename": "a\n\x1b[31m\u202e\ud800.png", "subfolder": "b\x85"}]
    saved.write_text(json.dumps({"4\n\x1b": {**WORKFLOW["4"], "_meta": {"title": "\u202e\r\x9b"}}}))
    assert run(comfyui, saved) == 0
    shown = capsys.readouterr()
    assert all(line.isprintable() for line in (shown.out + shown.err).splitlines())
    assert outputs(saved) == ["b_/a__[31m__.png"]


# --- pictures of the websocket

BY_SOCKET = {**WORKFLOW, "9": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["3", 0]}}}


@pytest.mark.parametrize("plain", [False, True])
def test_pictures_that_come_by_the_websocket_alone_are_saved(
    comfyui: ComfyUI, saved: Path, capsys: pytest.CaptureFixture[str], *, plain: bool
) -> None:
    saved.write_text(json.dumps(BY_SOCKET))
    comfyui.faults.plain = plain
    assert run(comfyui, saved, "--json") == 0
    names = ["SaveImageWebsocket_9_00001_.png", "SaveImageWebsocket_9_00002_.png"]
    out = saved.parent / "out"
    assert [(out / name).read_bytes() for name in names] == [PNG + b"\0", PNG + b"\1"]
    assert outputs(saved) == [*names, "night/SaveImage_4.png"], "no preview of the sampler"
    rows = json.loads(capsys.readouterr().out)["outputs"]
    assert [(row["node"], row["type"]) for row in rows[:2]] == [("9", "websocket")] * 2


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (Faults(lose=1), r"Node 9: 1 of 2 pictures came by the websocket, which was cut"),
        (Faults(silent=True), r"Node 9: 0 of 1 pictures came by the websocket"),
    ],
)
def test_pictures_of_the_websocket_that_are_lost_are_said(
    comfyui: ComfyUI, saved: Path, faults: Faults, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_run, "_DRAIN", 0.3)
    saved.write_text(json.dumps(BY_SOCKET))
    comfyui.faults = faults
    with pytest.raises(ComfyError, match=said) as caught:
        run(comfyui, saved)
    assert caught.value.exit_code == FAILED


def test_a_message_that_is_too_large_is_said(
    comfyui: ComfyUI, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LARGEST_MESSAGE", 1 << 20)
    comfyui.faults.messages = [bytes(2 << 20)]
    with pytest.raises(ComfyError, match="sent a message of more than 1 MiB"):
        run(comfyui, saved)


# --- requests of workers


def test_a_workers_request_is_run_with_its_pictures(comfyui: ComfyUI, saved: Path) -> None:
    comfyui.inputs["/old.png"] = b"another"
    data = base64.b64encode(PNG).decode()
    images = [{"name": "old.png", "image": f"data:image/png;base64,{data}"}, {"name": "b.png", "image": data}]
    saved.write_text(json.dumps({"input": {"workflow": WORKFLOW, "images": images}}))
    assert run(comfyui, saved) == 0
    assert comfyui.inputs == {"/old.png": b"another", "/old (1).png": PNG, "/b.png": PNG}
    assert comfyui.prompts[0]["prompt"]["1"]["inputs"]["image"] == "old (1).png"


def test_a_picture_may_be_a_data_uri_or_have_an_equals_sign_in_its_name(
    comfyui: ComfyUI, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved.parent)
    picture(saved.parent, name="photo=1.png")
    assert run(comfyui, saved, "--image", "photo=1.png") == 0
    uri = f"data:image/png;base64,{base64.b64encode(b'x' + PNG).decode()}"
    assert run(comfyui, saved, "--image", f"1={uri}") == 0
    assert comfyui.inputs == {"/photo=1.png": PNG, "/image.png": b"x" + PNG}


# --- answers that ComfyUI does not give

HTML = (200, {"Content-Type": "text/html"}, b"<html>Waiting for your pod</html>")
JSON = {"Content-Type": "application/json"}
ODD = [
    ({"/prompt": HTML}, "answers with a page .200., so it is not ComfyUI", UNREACHABLE),
    (
        {"/prompt": (302, {"Location": "http://[::1"}, b"")},
        r"redirects to http://\[::1: give that",
        UNREACHABLE,
    ),
    (
        {"/prompt": (307, {"Location": "https://me:canary@x/?canary"}, b"")},
        "redirects to https://…@x/",
        UNREACHABLE,
    ),
    ({"/prompt": (429, {}, b"")}, "rejects all logins for a moment", UNREACHABLE),
    ({"/history": (200, JSON, b"[" + b"{}," * 1_100_000 + b"1]")}, "with more than 500000 values", FAILED),
    ({"/prompt": (502, {}, b"bad")}, "a proxy answers 502", UNREACHABLE),
    ({"/prompt": (200, JSON, b"[" * 100_000)}, "answers /prompt with broken JSON", UNREACHABLE),
    ({"/prompt": (200, JSON, b"[]")}, "refused the workflow: it answered 200", FAILED),
    ({"/prompt": (400, JSON, b'{"error": {"message": ["\\n"]}}')}, "refused the workflow", FAILED),
    ({"/prompt": (200, JSON, b'{"prompt_id": 7}')}, "refused the workflow: it answered 200", FAILED),
    ({"/prompt": (200, JSON, b'{"prompt_id": "../../\\u0000"}')}, "refused the workflow", FAILED),
    ({"/prompt": (200, JSON, b'{"prompt_id": "\\ud800"}')}, "refused the workflow", FAILED),
    ({"/prompt": (200, JSON, b" " * (33 << 20))}, "answers prompt with more than 32 MiB", FAILED),
    (
        {"/prompt": (200, {**JSON, "Content-Encoding": "gzip"}, b"\x1f\x8b")},
        "gzip that breaks off",
        UNREACHABLE,
    ),
    ({"/prompt": (200, {**JSON, "Content-Encoding": "gzip"}, b"{}")}, "damaged gzip", UNREACHABLE),
    ({"/prompt": (200, {**JSON, "Content-Encoding": "br"}, b"{}")}, "came as br", FAILED),
    ({"/history": (200, JSON, b" " * (33 << 20))}, "answers history with more than 32 MiB", FAILED),
    ({"/history": HTML}, "answers with a page", UNREACHABLE),
    ({"/history": (200, JSON, b"[1]")}, r"answer to /history cannot be used \(200\)", UNREACHABLE),
    ({"/history": (500, {}, b"")}, r"answer to /history cannot be used \(500\)", UNREACHABLE),
    (
        {"/queue": (200, JSON, b'{"queue_running": [7, [], {}]}'), "/history": (200, JSON, b"{}")},
        "neither",
        FAILED,
    ),
    ({"/ws": HTML}, "answers 200 to a websocket", UNREACHABLE),
    ({"/ws": (302, {"Location": "http://[::1"}, b"")}, "cannot be reached", UNREACHABLE),
    ({"/view": HTML}, "", 0),
    (
        {"/view": (302, {"Location": "http://[::1"}, b"")},
        r"does not serve SaveImage_4.png \(302\)",
        FAILED,
    ),
]


@pytest.mark.parametrize(("given", "said", "code"), ODD)
def test_an_answer_that_is_not_comfyuis_is_one_sentence(
    comfyui: ComfyUI, saved: Path, given: dict[str, Any], said: str, code: int
) -> None:
    comfyui.faults.answers = given
    if not code:
        assert run(comfyui, saved) == 0
        return
    with pytest.raises(ComfyError, match=said) as caught:
        run(comfyui, saved, "--timeout", "20")
    assert caught.value.exit_code == code
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "stray",
    [
        {"/history": [500, 404, 200]},
        {"/history": [429, 503, 502]},
        {"/queue": [500, 200], "/history": [404]},
        {"/view": [500, 503, 429, 502]},
        {"/prompt": [429, 503]},
        {"/ws": [429, 503]},
    ],
)
def test_a_stray_answer_of_a_proxy_loses_no_run(
    comfyui: ComfyUI, saved: Path, stray: dict[str, list[int]]
) -> None:
    comfyui.faults.stray = stray
    assert run(comfyui, saved) == 0
    assert outputs(saved) == ["night/SaveImage_4.png"]
    assert not any(stray.values())
    assert len(comfyui.prompts) == 1


def test_a_history_that_is_empty_once_loses_no_run(comfyui: ComfyUI, saved: Path) -> None:
    seen: list[object] = []

    class Late(dict[str, Any]):
        def __contains__(self, key: object) -> bool:
            seen.append(key)
            return len(seen) > 1 and super().__contains__(key)

    comfyui.history = Late()
    assert run(comfyui, saved) == 0
    assert len(seen) > 1


def test_a_prompt_is_never_queued_twice(comfyui: ComfyUI, saved: Path) -> None:
    """Where a proxy may have passed it on, it is not sent again; where it has, it is followed."""
    comfyui.faults.stray = {"/prompt": [502]}
    with pytest.raises(ComfyError, match="a proxy answers 502"):
        run(comfyui, saved)
    assert not comfyui.prompts
    comfyui.faults.stray, comfyui.faults.taken = {"/prompt": [503]}, True
    with pytest.raises(ComfyError, match="a proxy lost ComfyUI's answer"):
        run(comfyui, saved)
    assert outputs(saved) == ["night/SaveImage_4.png"]
    assert len(comfyui.prompts) == 1


@pytest.mark.parametrize(("name", "window"), [("gzip", 31), ("deflate", 15)])
def test_what_a_proxy_compresses_is_decompressed(
    comfyui: ComfyUI, saved: Path, name: str, window: int
) -> None:
    coder = zlib.compressobj(wbits=window)
    body = coder.compress(PNG + bytes(3 << 20)) + coder.flush()
    comfyui.faults.answers = {"/view": (200, {"Content-Encoding": name}, body)}
    assert run(comfyui, saved) == 0
    path = saved.parent / "out" / "night" / "SaveImage_4.png"
    assert path.read_bytes() == PNG + bytes(3 << 20)
    with pytest.raises(ComfyError, match="more than 9000 bytes"):
        run(comfyui, saved, "--max-bytes", "9000")


@pytest.mark.parametrize("words", [("--image", "1=data:,B"), ("--set", "1.image=a.png")])
def test_an_input_that_is_given_twice_is_refused(
    comfyui: ComfyUI, saved: Path, words: tuple[str, str]
) -> None:
    with pytest.raises(ComfyError, match=r"1\.image is given twice by --image or --set") as caught:
        run(comfyui, saved, "--image", "1=data:,A", *words)
    assert caught.value.exit_code == 64
    assert not comfyui.prompts


@pytest.mark.parametrize("text", ["1+1", "0", "-1", "inf", "nan", "1e999", "one"])
def test_a_timeout_that_is_no_time_is_said(
    saved: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["run", str(saved), "--timeout", text])
    assert caught.value.code == 2
    assert "give a number of seconds above 0" in capsys.readouterr().err


def test_the_scheme_of_a_server_may_be_in_capitals(comfyui: ComfyUI, saved: Path) -> None:
    words = ["--server", comfyui.url.replace("http", "HTTP"), "--out", str(saved.parent / "out")]
    assert command.main(["run", str(saved), *words]) == 0


def test_messages_that_are_no_events_are_passed_over(comfyui: ComfyUI, saved: Path) -> None:
    comfyui.faults.messages = [
        *("", "[", "[" * 50_000, "7", "null", '{"type": 7}', '{"type": "executing", "data": [1]}'),
        *(b"", b"\0\0\0\1", b"\0\0\0\4\xff\xff\xff\xff", b"\0\0\0\4\0\0\0\2{}" + PNG, b"\0\0\0\3text"),
        '{"type": "progress", "data": {"prompt_id": null}}',
    ]
    assert run(comfyui, saved) == 0


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"name": 7}', b'{"name": ""}', b"", b"<html>"])
def test_an_upload_that_is_answered_oddly_is_said(comfyui: ComfyUI, saved: Path, body: bytes) -> None:
    comfyui.faults.answers = {"/upload": (200, JSON if body[:1] != b"<" else {}, body)}
    with pytest.raises(ComfyError, match=r"did not take cat.png \(it answered 200\)|broken JSON"):
        run(comfyui, saved, "--image", picture(saved.parent))
