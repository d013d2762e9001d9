"""start.sh of the variant `server`, run by a real shell: all is real but the server itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from images import ROOT
from registries import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

# Loading until a file is there, then serving; it says what it knows, and ends with 0 when it is told to.
SERVER = """
import http.server, json, os, pathlib, signal, sys, threading
from pod.errors import SETTING_MALFORMED, PodError
loaded = pathlib.Path(os.environ["WORKSPACE"], "loaded")
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404 if self.path != "/ping" else 200 if loaded.exists() else 204)
        self.end_headers()
    def log_message(self, *_):
        pass
def main(argv):
    if not os.environ.get("MODEL_ID"):
        raise PodError("MODEL_ID is not set: name a model.", SETTING_MALFORMED)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("knows", json.dumps(dict(os.environ)), flush=True)
    server.serve_forever()
    print("ended as asked", flush=True)
    return 0
"""
TOKENS = ("HF_TOKEN", "CIVITAI_TOKEN", "API_TOKEN", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY")
ENDED = "podkiln: The model server has ended, so the pod stops:"
OTHERS = ("RUNPOD_API_KEY", "COMFY_ORG_API_KEY", "JUPYTER_PASSWORD")


class Pod:
    """A folder in the place of a container, with the files that the variant's image has."""

    def __init__(self, root: Path, flags_json: dict[str, Any]) -> None:
        self.root = root
        self.opt, self.run, self.workspace = root / "opt", root / "run", root / "workspace"
        self.workspace.mkdir()
        shutil.copytree(ROOT / "scripts" / "pod", self.opt / "pod")
        shutil.copy(ROOT / "scripts" / "__main__.py", self.opt)
        (self.opt / "server").mkdir()
        (self.opt / "server" / "command.py").write_text(SERVER)
        (self.opt / "flags.json").write_text(json.dumps(flags_json))
        (self.opt / "models.json").write_text('{"schema": 1, "models": []}')
        (root / "meminfo").write_text("MemTotal: 67108864 kB\n")
        script = (ROOT / "tests" / "golden" / "server" / "start.sh").read_text()
        for old, new in (
            ("cd /opt/podkiln", f"cd {root}"),
            ("/opt/venv/bin/python", sys.executable),
            ("/usr/bin/python3", sys.executable),
        ):
            assert old in script
            script = script.replace(old, new)
        (root / "start.sh").write_text(script)
        self.log = root / "log"
        self.environ = {
            "PATH": f"{ROOT}/tests/fakes:{os.environ['PATH']}",
            "PODKILN_SERVE": "diffusers",
            "PODKILN_ROOT": str(self.opt),
            "PODKILN_RUN": str(self.run),
            "PODKILN_LOCAL": str(root / "local"),
            "PODKILN_CGROUP_ROOT": str(root / "cgroup"),
            "PODKILN_MEMINFO": str(root / "meminfo"),
            "WORKSPACE": str(self.workspace),
            "PORT": str(free_port()),
            "FAKE_GPU": "24",
            **{name: f"canary-{name}" for name in (*TOKENS, *OTHERS)},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str, **settings: str) -> subprocess.Popen[bytes]:
        """Run start.sh; what it says goes to one log."""
        with self.log.open("ab") as log:
            argv = ["bash", str(self.root / "start.sh"), *words]
            self.process = subprocess.Popen(argv, env=self.environ | settings, stdout=log, stderr=log)
        return self.process

    def until(self, text: str) -> str:
        """Wait until the log holds a text; returns the log."""
        end = time.monotonic() + 30
        while text not in (said := self.log.read_text()):
            assert time.monotonic() < end, said
            time.sleep(0.02)
        return said

    def health(self) -> tuple[int, str]:
        """Ask as Docker does."""
        argv = [sys.executable, "-I", "-S", str(self.opt), "health"]
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr


@pytest.fixture
def pod(tmp_path: Path, flags_json: dict[str, Any]) -> Iterator[Pod]:
    made = Pod(tmp_path, flags_json)
    yield made
    if made.process:
        with made.process:
            made.process.kill()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"PODKILN_RUN={made.run}".encode() in (folder / "environ").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:
            continue


def test_its_server_is_loaded_serves_and_ends_and_nobody_speaks_of_comfyui(pod: Pod) -> None:
    start = pod.start(MODEL_ID="org/model")
    said = pod.until("knows ")
    knows = json.loads(said.partition("knows ")[2].splitlines()[0])
    assert {name for name in (*TOKENS, *OTHERS) if name in knows} == set(TOKENS)
    while pod.health()[1].startswith("the model server does not answer"):
        time.sleep(0.05)
    assert pod.health() == (1, "the model server has not loaded its model yet.\n")
    assert "ready in" not in pod.log.read_text()
    (pod.workspace / "loaded").touch()
    pod.until("podkiln: ready in")
    assert pod.health() == (0, "")
    decided = json.loads((pod.run / "decision.json").read_text())
    assert (decided["serve"], decided["port"], decided["ram_mib"]) == (
        "diffusers",
        int(pod.environ["PORT"]),
        65536,
    )
    assert decided["gpu"]["vram_mib"] > 20000
    start.terminate()
    assert start.wait(20) == 0
    said = pod.log.read_text()
    assert said.endswith("podkiln: stopping\nended as asked\n")
    assert "ComfyUI" not in said.replace(json.dumps(knows), "")
    assert "ended as asked" in (pod.workspace / "logs" / "server.log").read_text()
    assert sorted(each.name for each in pod.workspace.iterdir()) == [".podkiln", "loaded", "logs"]


@pytest.mark.parametrize(
    ("settings", "code", "says"),
    [
        ({}, 78, f"MODEL_ID is not set: name a model.\n{ENDED} exit code 78.\n"),
        ({"WEB_USER": "me"}, 78, "WEB_USER asks for a login, which this image does not have"),
        ({"PORT": "0"}, 78, "PORT='0' is not"),
        (
            {"FAKE_GPU_DRIVER": "470.57.02"},
            69,
            "The model server cannot work here: the NVIDIA driver",
        ),
        ({"CUDA_VISIBLE_DEVICES": "7"}, 69, "correct it, or CUDA_VISIBLE_DEVICES=-1 does without the GPU"),
    ],
)
def test_what_cannot_be_served_ends_the_pod_with_a_sentence(
    pod: Pod, settings: dict[str, str], code: int, says: str
) -> None:
    assert pod.start(**settings).wait(20) == code
    said = pod.log.read_text()
    assert says in said
    assert "ComfyUI" not in said


def test_explain_says_what_was_found_and_starts_nothing(pod: Pod) -> None:
    assert pod.start("--explain", MODEL_ID="org/model").wait(20) == 0
    said = pod.log.read_text()
    assert json.loads(said[said.index("{\n") :])["serve"] == "diffusers"
    assert "ComfyUI" not in said
    assert list(pod.workspace.iterdir()) == []
