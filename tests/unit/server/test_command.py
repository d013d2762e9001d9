"""The command: what it says while it loads, its one line for programs, its end, what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NoReturn

import aiohttp
import pytest
from images import ROOT
from registries import free_port
from unit.server.http_model import TOKEN

from pod.errors import ARGUMENTS_REFUSED, SETTING_MALFORMED, UNFIT, PodError
from server import command
from worker.serve_settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from server.generation.request import Model

PROGRAM = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from server import command
from unit.server.fake_model import FakeModel

class Slow(FakeModel):
    def generate(self, asked, progress, cancelled):
        Path(sys.argv[3], "generates").touch()
        time.sleep(0.3)
        return super().generate(asked, progress, cancelled)

def load(environ, phase):
    phase("fetching weights")
    while not Path(sys.argv[3], "there").exists():
        time.sleep(0.01)
    return Slow()

sys.exit(command.main([], load))
"""


def ask(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Authorization": f"Bearer {TOKEN}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read() or b"null")


def test_it_listens_while_it_loads_and_lets_the_running_generation_end(tmp_path: Path) -> None:
    port = free_port()
    environ = {"PATH": os.environ["PATH"], "PORT": str(port), "API_TOKEN": TOKEN}
    argv = [sys.executable, "-c", PROGRAM, str(ROOT / "scripts"), str(ROOT / "tests"), str(tmp_path)]
    with subprocess.Popen(
        argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            assert process.stderr.readline() == f"podkiln: requests are taken on port {port}.\n"
            assert ask(port, "/ping")[0] == 204
            while ask(port, "/health")[1]["phase"] != "fetching weights":
                time.sleep(0.01)
            assert ask(port, "/generate", {"prompt": "a"}) == (
                503,
                {"error": "The model is being loaded (fetching weights)."},
            )
            (tmp_path / "there").touch()
            assert process.stdout.readline() == f"podkiln: ready for jobs, http://localhost:{port}.\n"
            assert ask(port, "/ping")[0] == 200
            answers: list[Any] = []
            running = threading.Thread(target=lambda: answers.append(ask(port, "/generate", {"prompt": "a"})))
            running.start()
            while not (tmp_path / "generates").exists():
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            running.join()
            assert (answers[0][0], answers[0][1]["status"]) == (200, "COMPLETED")
            assert process.wait(20) == 0
            assert process.stdout.read() == ""
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_a_model_that_cannot_be_loaded_is_a_sentence_for_all() -> None:
    def load(_environ: Mapping[str, str], _phase: Callable[[str], None]) -> NoReturn:
        raise PodError("MODEL_ID: /srv/private/x names nothing.", SETTING_MALFORMED)

    async def work() -> None:
        settings = Settings(port=0, host="127.0.0.1", token=TOKEN)
        async with command.served(load, settings) as (port, _, loading):
            with pytest.raises(PodError, match="names nothing"):
                await loading
            async with aiohttp.ClientSession(headers={"X-API-Key": TOKEN}) as session:
                for path, status in (("/ping", 503), ("/ready", 503), ("/v1/models", 503), ("/health", 200)):
                    async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                        assert answer.status == status
                        said = await answer.text()
                        assert "private" not in said
                assert said.startswith('{"status": "failed"')

    asyncio.run(work())


def test_what_cannot_be_begun_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_environ: Mapping[str, str], _phase: Callable[[str], None]) -> Model:
        raise AssertionError

    for words, variables, code, part in (
        (["x"], {}, ARGUMENTS_REFUSED, "'x' is one"),
        ([], {}, SETTING_MALFORMED, "API_TOKEN is not set"),
        ([], {"API_TOKEN": TOKEN, "SERVE_QUEUE": "many"}, SETTING_MALFORMED, "SERVE_QUEUE"),
        ([], {"RUNPOD_WEBHOOK_GET_JOB": "http://127.0.0.1/"}, UNFIT, "The runpod SDK cannot be imported"),
    ):
        with monkeypatch.context() as context:
            for name in ("API_TOKEN", "RUNPOD_ENDPOINT_ID", "RUNPOD_WEBHOOK_GET_JOB"):
                context.delenv(name, raising=False)
            for name, value in variables.items():
                context.setenv(name, value)
            with pytest.raises(PodError, match=part) as refused:
                command.main(words, load)
        assert refused.value.exit_code == code
