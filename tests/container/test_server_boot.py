"""The image of the variant `server`: what is in it, and its boot, with the real server and with a stand-in.

Of the runtime only what its HTTP side needs is installed, as it is locked; diffusers is there, torch is not.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from containers import Container, docker
from images import Image, build

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podkiln.build.base_image import BaseLayout

pytestmark = pytest.mark.engine
# Loads until a file is there, answers /ping, and ends with 0 when it is told to: all that the boot knows of.
STAND_IN = """
import http.server, os, pathlib, signal, threading
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if pathlib.Path("/workspace/loaded").exists() else 204)
        self.end_headers()
    def log_message(self, *_):
        pass
def main(argv):
    server = http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Answer)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    print("ended as asked", flush=True)
    return 0
"""
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def image(bootstrap_base: BaseLayout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    made = build(["server"], tmp_path_factory.mktemp("server") / "dist", "--load")
    yield made.images["server"]
    docker("image", "rm", "--force", made.images["server"].name, check=False)


def test_there_is_no_comfyui_in_it(image: Image) -> None:
    shell = (
        "ls -d /opt/ComfyUI /opt/jupyter /usr/local/bin/podkiln-* /opt/venv/lib/python3*/site-packages/comfy*"
    )
    look = docker("run", "--rm", "--entrypoint", "sh", image.name, "-c", shell, check=False)
    assert look.stdout == ""
    shell = "cat /opt/podkiln/manifest.json"
    manifest = json.loads(docker("run", "--rm", "--entrypoint", "sh", image.name, "-c", shell).stdout)
    assert "comfyui" not in manifest
    assert manifest["serve"]["by"] == "diffusers"
    shell = "import importlib.metadata as m; print(m.version('diffusers'), m.version('runpod'))"
    python = ("--entrypoint", "/opt/venv/bin/python", image.name, "-I", "-c", shell)
    locked = manifest["serve"]["packages"]
    assert docker("run", "--rm", *python).stdout.split() == [locked["diffusers"], locked["runpod"]]


def test_it_is_healthy_once_the_model_is_loaded_and_stops_cleanly(image: Image, tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(STAND_IN)
    mounts = {str(tmp_path): "/opt/podkiln/server:ro"}  # whole: bytecode of the real one would win
    options = ("--health-interval=1s",)
    with Container(image.name, env={"MODEL_ID": "a/b"}, mounts=mounts, options=options) as pod:
        pod.wait_log("No volume is mounted")
        time.sleep(2)
        assert pod.state()["Health"]["Status"] == "starting"
        pod.exec("touch", "/workspace/loaded")
        pod.wait_log("podkiln: ready in")
        end = time.monotonic() + 20
        while (status := pod.state()["Health"]["Status"]) != "healthy":
            assert time.monotonic() < end, status
            time.sleep(0.2)
        took = pod.stop()
        assert (pod.state()["ExitCode"], took < 9) == (0, True)
        assert "ended as asked" in pod.logs()
        assert "ComfyUI" not in pod.logs()


def test_without_a_model_the_server_says_so_in_a_sentence(image: Image) -> None:
    with Container(image.name, env={"API_TOKEN": TOKEN}) as pod:
        assert pod.wait_exit() == 78
        said = pod.logs()
        assert "podkiln: MODEL_ID is not set" in said
        assert "podkiln: The model server has ended, so the pod stops: exit code 78." in said
        assert "ComfyUI" not in said
        assert "Traceback" not in said
