"""`/opt/podkiln serve` as a process: its one line for programs, its end, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from images import ROOT
from unit.worker.http_worker import JOB, TOKEN

from pod.errors import ARGUMENTS_REFUSED, SETTING_MALFORMED, UNFIT

if TYPE_CHECKING:
    from pathlib import Path

    from servers.comfyui import ComfyUI

ARGV = [sys.executable, "-I", str(ROOT / "scripts"), "serve"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def environ(folder: Path, **more: str) -> dict[str, str]:
    own = {"PODKILN_RUN": str(folder), "PODKILN_LOCAL": str(folder), "API_TOKEN": TOKEN}
    return {"PATH": os.environ["PATH"], "PORT": str(free_port()), **own, **more}


def ask(port: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def test_it_says_when_it_is_ready_and_lets_the_job_in_work_end(comfyui: ComfyUI, tmp_path: Path) -> None:
    (tmp_path / "comfyui.args").write_text(f"--listen=127.0.0.1\0--port={urlsplit(comfyui.url).port}\0")
    env = environ(tmp_path)
    with subprocess.Popen(
        ARGV, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            port = env["PORT"]
            ready = process.stdout.readline()
            assert ready == f"podkiln: ready for jobs, http://localhost:{port}.\n"
            assert ask(port, "/runsync", JOB)["status"] == "COMPLETED"
            comfyui.faults.endless = True
            running, waiting = [ask(port, "/run", JOB)["id"] for _ in range(2)]
            while not comfyui.running:
                pass
            process.send_signal(signal.SIGTERM)
            while ask(port, f"/status/{waiting}")["status"] != "FAILED":
                pass
            comfyui.faults.endless = False
            while ask(port, f"/status/{running}")["status"] != "COMPLETED":
                pass
            assert process.wait(20) == 0
            assert process.stdout.read() == ""
            said = process.stderr.read()
            assert f"jobs are taken on port {port}." in said
            assert "Traceback" not in said
            assert TOKEN not in said
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("words", "more", "code", "says"),
    [
        ([], {"API_TOKEN": ""}, SETTING_MALFORMED, "API_TOKEN is not set, so that everybody"),
        (["8000"], {}, ARGUMENTS_REFUSED, "serve takes no words, and '8000' is one."),
        ([], {"PORT": "taken"}, UNFIT, "cannot be listened on: Address already in use."),
    ],
)
def test_what_it_cannot_do_is_a_sentence(
    tmp_path: Path, words: list[str], more: dict[str, str], code: int, says: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        if more.get("PORT") == "taken":
            more = {"PORT": str(taken.getsockname()[1])}
        done = subprocess.run(
            [*ARGV, *words],
            env=environ(tmp_path, **more),
            check=False,
            capture_output=True,
            text=True,
            timeout=20,
        )
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
