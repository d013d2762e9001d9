"""`serve: runpod`: the shipped variant with the real SDK, before an endpoint with RunPod's job protocol.

Of the runtime only what the worker and the SDK need is installed, as it is locked; the SDK is all there.
Source of the protocol: runpod 1.12.0 (rp_job.py, rp_http.py, rp_ping.py).
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from containers import Container, docker, gateway
from images import REQUIREMENTS, Image, build

from podkiln.lock import locations, requirements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.build.base_image import BaseLayout

pytestmark = pytest.mark.engine
KEY = "rpa_canary"
SECRETS = {"RUNPOD_AI_API_KEY": KEY, "AWS_SECRET_ACCESS_KEY": "canary", "COMFY_ORG_API_KEY": "canary"}
WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "first"}},
}
# Packages of the runtime that the SDK has its part of.
BELOW_THE_SDK = """
    annotated-doc annotated-types anyio certifi charset-normalizer click h11 httpcore2 httpx2 jinja2
    markdown-it-py markupsafe mdurl psutil pydantic pydantic-core pydantic-settings pygments python-dotenv
    requests rich shellingham tqdm truststore typer typing-extensions typing-inspection urllib3
"""


class Endpoint:
    """A queue with jobs, as the SDK asks for them; a poll without one is held open for a second."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.taken: list[str] = []
        self.answers: dict[str, dict[str, Any]] = {}
        self.keys: set[str | None] = set()
        endpoint = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                endpoint.keys.add(self.headers["Authorization"])
                call = self.path.split("/")[3]
                job = endpoint.next_job() if call == "job-take" else None
                if call in ("job-take", "job-stop") and job is None:
                    time.sleep(1)
                self.reply(200 if call == "ping" or job else 204, job)

            def do_POST(self) -> None:
                number = self.path.partition("?")[0].split("/")[-1]
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if body.get("status") != "IN_PROGRESS":
                    endpoint.answers[number] = body
                self.reply(200, None)

            def reply(self, status: int, job: dict[str, Any] | None) -> None:
                content = json.dumps(job).encode() if job else b""
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((gateway(), 0), Answer)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next_job(self) -> dict[str, Any] | None:
        """Give out the next job."""
        if not self.jobs:
            return None
        self.taken.append(self.jobs.pop(0))
        return {"id": self.taken[-1], "input": {"workflow": WORKFLOW}}

    def until(self, done: Any, pod: Container) -> None:
        """Wait for something that a pod has to do."""
        end, tries = time.monotonic() + 120, 0
        while not done(self):
            # The engine's client costs the processors that the pod works on, so it is called now and then.
            if tries % 40 == 0:
                assert pod.state()["Running"], f"{pod.name} ended:\n{pod.logs()}"
            tries += 1
            assert time.monotonic() < end, f"after 120 s:\n{pod.logs()}"
            time.sleep(0.05)

    @property
    def environ(self) -> dict[str, str]:
        """What RunPod sets in its workers."""
        base = f"http://{gateway()}:{self.server.server_port}/v2/ep"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=X",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=X",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?gpu=X",
            "RUNPOD_POD_ID": "worker-1",
            "RUNPOD_ENDPOINT_ID": "ep",
        }


@pytest.fixture(scope="module")
def image(bootstrap_base: BaseLayout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("serverless")
    locked = locations.LOCKS / "comfyui-0.33.0-cuda-13.0" / "python"
    blocks: dict[str, str] = {}
    for file in locked.glob("*.txt"):
        blocks |= requirements.pinned_blocks(file.read_text())
    shutil.copytree(REQUIREMENTS, folder / "requirements")
    with (folder / "requirements" / "libraries.txt").open("a") as libraries:
        libraries.writelines(f"{blocks[name]}\n" for name in BELOW_THE_SDK.split())
    made = build(["serverless"], folder / "dist", "--load", requirements=folder / "requirements")
    yield made.images["serverless"]
    docker("image", "rm", "--force", made.images["serverless"].name, check=False)


def test_jobs_are_done_and_a_stop_lets_the_last_one_end_before_comfyui(image: Image) -> None:
    endpoint = Endpoint()
    endpoint.jobs = ["first"]
    env = {**endpoint.environ, **SECRETS, "MODELS": "none", "CONTRACT_PROMPT_SECONDS": "2"}
    with Container(image.name, env=env) as pod:
        endpoint.until(lambda it: "first" in it.answers, pod)
        (picture,) = endpoint.answers["first"]["output"]["images"]
        assert (picture["filename"], picture["mime"]) == ("first_00001_.png", "image/png")
        assert endpoint.keys == {KEY}

        processes = pod.exec("sh", "-c", "cut -d ' ' -f 1 /run/podkiln/processes/worker").stdout.split()
        assert KEY in pod.exec("cat", f"/proc/{processes[0]}/environ").stdout
        comfyui = pod.exec("sh", "-c", "cut -d ' ' -f 1 /run/podkiln/processes/comfyui").stdout.strip()
        assert "canary" not in pod.exec("cat", f"/proc/{comfyui}/environ").stdout
        open_ports = pod.exec("cat", "/proc/net/tcp").stdout
        assert ":1FFC " not in open_ports, "8188: nobody comes to the page"
        health = ("/usr/bin/python3", "-I", "-S", "/opt/podkiln", "health")
        assert pod.exec(*health).returncode == 0
        assert json.loads(pod.read("/run/podkiln/boot.json"))["worker"]["restarts"] == []

        endpoint.jobs = ["second"]
        endpoint.until(lambda it: "second" in it.taken, pod)
        time.sleep(0.5)
        took = pod.stop()
        assert len(endpoint.answers["second"]["output"]["images"]) == 1
        assert (pod.state()["ExitCode"], took < 9) == (0, True)
        log = docker("logs", pod.name)
        assert "Traceback" not in log.stdout + log.stderr
        assert log.stdout.index('"job": "second", "event": "done"') < log.stdout.index("Stopped server")


def test_without_an_endpoint_one_job_is_run_by_hand(image: Image) -> None:
    with Container(image.name, env={"MODELS": "none"}) as pod:
        pod.wait_log("ready in")
        assert "This is no worker of a RunPod endpoint" in pod.logs()
        given = json.dumps({"input": {"workflow": WORKFLOW}})
        done = pod.exec("/opt/venv/bin/python", "-I", "/opt/podkiln", "worker", "--test_input", given)
        assert "first_00001_.png" in done.stdout + done.stderr
