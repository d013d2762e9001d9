"""The edge to RunPod: what the SDK is given, with its place taken by what records it.

The calls are those of runpod 1.12.0: start, rp_http.send_result and AsyncClientSession.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from unit.worker.test_job import WORKFLOW

from pod.errors import SETTING_MALFORMED, UNFIT, PodError
from worker import children, command, runpod_sdk
from worker.handler import CRASHED, Worker
from worker.job_file import JobFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from servers.comfyui import ComfyUI

    from worker.job import Place

PLATFORM = {"RUNPOD_WEBHOOK_GET_JOB": "http://127.0.0.1/v2/ep/job-take/$ID?gpu=X"}


@dataclass
class SDK:
    """The SDK, as far as it is called: one job is handled when it starts."""

    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    checks: list[Callable[[], None]] = field(default_factory=list)

    def start(self, config: dict[str, Any]) -> None:
        job = {"id": "job-1", "input": {"workflow": WORKFLOW}}
        self.answers.append(asyncio.run(config["handler"](job)))

    async def send_result(self, session: object, body: dict[str, Any], job: dict[str, Any]) -> None:
        assert session == "a session"
        self.sent.append((job["id"], body))


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> SDK:
    found = SDK()

    @asynccontextmanager
    async def session() -> AsyncIterator[str]:
        yield "a session"

    parts = {
        "runpod": SimpleNamespace(
            __version__="1.12.0",
            serverless=SimpleNamespace(start=found.start, register_fitness_check=found.checks.append),
        ),
        "runpod.serverless.modules.rp_http": SimpleNamespace(send_result=found.send_result),
        "runpod.http_client": SimpleNamespace(AsyncClientSession=session),
    }
    for name, part in parts.items():
        monkeypatch.setitem(sys.modules, name, part)
    return found


def test_jobs_are_handled_and_their_progress_is_sent(sdk: SDK, place: Place, tmp_path: Path) -> None:
    runpod_sdk.serve(Worker(place, JobFile(tmp_path / "jobs.json")), dict(PLATFORM))
    assert len(sdk.answers[0]["images"]) == 1
    assert {number for number, _ in sdk.sent} == {"job-1"}
    body = sdk.sent[0][1]
    assert (body["status"], body["output"]["type"]) == ("IN_PROGRESS", "progress")


def test_without_a_platform_nothing_is_sent(sdk: SDK, place: Place, tmp_path: Path) -> None:
    JobFile(tmp_path / "jobs.json").begin("left")
    runpod_sdk.serve(Worker(place, JobFile(tmp_path / "jobs.json")), {})
    assert (len(sdk.answers), sdk.sent) == (1, [])


def test_a_job_that_a_killed_worker_left_open_fails_before_the_next_is_taken(
    sdk: SDK, comfyui: ComfyUI, place: Place, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.json"
    JobFile(path).note("left", "its prompt")
    runpod_sdk.serve(Worker(place, JobFile(path)), dict(PLATFORM))
    assert sdk.sent[0] == ("left", {"error": CRASHED})
    assert [number for number, _ in sdk.sent].count("left") == 1
    assert JobFile(path).left() == {}
    assert comfyui.cancelled == ["its prompt"]


def test_one_that_cannot_be_reported_is_kept_and_keeps_no_worker_from_starting(
    sdk: SDK, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(sys.modules["runpod.serverless.modules.rp_http"], "send_result", away)
    path = tmp_path / "jobs.json"
    JobFile(path).note("left", "")
    runpod_sdk.serve(Worker(place, JobFile(path)), dict(PLATFORM))
    assert len(sdk.answers[0]["images"]) == 1
    assert JobFile(path).left() == {"left": ""}


def test_the_jobs_of_a_worker_beside_this_one_are_left_alone(
    sdk: SDK, comfyui: ComfyUI, place: Place, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.json"
    live = JobFile(path)
    assert live.claim() == {}
    live.note("at-work", "its prompt")
    runpod_sdk.serve(Worker(place, JobFile(path)), dict(PLATFORM))
    assert {number for number, _ in sdk.sent} == {"job-1"}
    assert comfyui.cancelled == []
    assert JobFile(path).left() == {"at-work": "its prompt"}


def test_checks_that_keep_good_workers_from_starting_are_off_unless_asked_for(
    sdk: SDK, place: Place, tmp_path: Path
) -> None:
    environ = {"RUNPOD_SKIP_GPU_CHECK": "false"}
    runpod_sdk.serve(Worker(place, JobFile(tmp_path / "jobs.json")), environ)
    checks = {"RUNPOD_SKIP_GPU_CHECK": "false", "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true"}
    assert environ == {**checks, "RUNPOD_LOG_LEVEL": "INFO"}


def test_how_much_the_sdk_logs_is_left_as_it_was_asked_for(sdk: SDK, place: Place, tmp_path: Path) -> None:
    for given in ({"RUNPOD_LOG_LEVEL": "ERROR"}, {"RUNPOD_DEBUG_LEVEL": "DEBUG"}):
        environ = dict(given)
        runpod_sdk.serve(Worker(place, JobFile(tmp_path / "jobs.json")), environ)
        assert {name: each for name, each in environ.items() if "LEVEL" in name} == given


def test_our_own_check_says_what_start_sh_found(sdk: SDK, place: Place, tmp_path: Path) -> None:
    """The SDK tells the platform the name of a check, and what it raised."""
    runpod_sdk.serve(
        Worker(replace(place, run=tmp_path), JobFile(tmp_path / "jobs.json")), {"RUNPOD_GPU_COUNT": "1"}
    )
    (check,) = sdk.checks
    check()
    (tmp_path / "decision.json").write_text(json.dumps({"gpu": None, "findings": []}))
    with pytest.raises(RuntimeError, match="There is no GPU that ComfyUI can use, and "):
        check()
    assert check.__name__ == "comfyui_can_work_here"


def test_without_the_sdk_there_is_a_sentence(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "runpod", None)
    with pytest.raises(PodError, match="`serve: runpod` in its variant") as failed:
        runpod_sdk.serve(Worker(place, JobFile(tmp_path / "jobs.json")), {})
    assert failed.value.exit_code == UNFIT


@pytest.mark.parametrize("version", ["1.10.0", "1.9.12", "0.14"])
def test_an_sdk_that_is_too_old_is_refused(
    sdk: SDK, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(sys.modules["runpod"], "__version__", version)
    with pytest.raises(PodError, match=f"The runpod SDK is {version}, which is too old: build an image"):
        runpod_sdk.serve(Worker(place, JobFile(tmp_path / "jobs.json")), {})
    assert sdk.answers == []


def test_a_worker_is_what_its_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODKILN_RUN", str(tmp_path))
    plain = command.worker({})
    assert (plain.place.address(), plain.place.api_key) == (None, None)
    (tmp_path / "comfyui.args").write_text("--listen=127.0.0.1\0--port=18188\0")
    assert plain.place.address() == "http://127.0.0.1:18188"
    assert (plain.refresh, plain.place.private_urls) == (False, False)
    assert (plain.place.bucket, plain.concurrency, plain.place.apart) == (None, 1, False)
    switches = {
        "REFRESH_WORKER": "true",
        "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "1",
        "COMFY_ORG_API_KEY": "key",
    }
    full = command.worker(switches)
    assert (full.refresh, full.place.private_urls, full.place.api_key) == (True, True, "key")
    light = command.worker(
        {"REFRESH_WORKER": "free", "WORKER_CONCURRENCY": "3", "WARMUP_WORKFLOW": "/warm.json"}
    )
    assert (light.refresh, light.free, light.concurrency, light.place.apart) == (False, True, 3, True)
    assert light.warm_up == "/warm.json"
    with pytest.raises(PodError, match="WORKER_CONCURRENCY='0' is not a whole number from 1 to 64"):
        command.worker({"WORKER_CONCURRENCY": "0"})
    with pytest.raises(PodError, match=r"^BUCKET_NAME is set and BUCKET_ENDPOINT_URL and"):
        command.worker({"BUCKET_NAME": "mine"})
    with pytest.raises(PodError, match="REFRESH_WORKER='maybe' is neither yes nor no: give true") as failed:
        command.worker({"REFRESH_WORKER": "maybe"})
    assert failed.value.exit_code == SETTING_MALFORMED


def test_what_stands_behind_the_command_is_the_sdks(sdk: SDK, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Worker] = []
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(runpod_sdk, "serve", served.append)
    monkeypatch.setattr(children, "end_with_this", lambda: None)
    assert command.main(["--rp_log_level", "INFO"]) == 0
    assert sys.argv[1:] == ["--rp_log_level", "INFO"]
    assert len(served) == 1
