"""The handler never raises, leaves no job open, and says nothing that is secret."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from images import ROOT
from unit.worker.test_job import WORKFLOW

from worker import handler, job
from worker.handler import STOPPED, Worker
from worker.job_file import JobFile
from worker.termination import Termination

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers.comfyui import ComfyUI

    from worker.job import Place

JOB: dict[str, Any] = {"id": "job-1", "input": {"workflow": WORKFLOW}}


@pytest.fixture
def open_jobs(tmp_path: Path) -> JobFile:
    return JobFile(tmp_path / "jobs.json")


@pytest.fixture
def worker(place: Place, open_jobs: JobFile) -> Worker:
    return Worker(place, open_jobs)


@pytest.fixture
def terminations() -> Iterator[list[int]]:
    """How often SIGTERM reached whoever had it before the worker: the SDK, in a real one."""
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    yield came
    signal.signal(signal.SIGTERM, before)


def handle(worker: Worker, **given: Any) -> dict[str, Any]:
    return asyncio.run(worker.handle({**JOB, "input": {"workflow": WORKFLOW, **given}}))


async def at_work(comfyui: ComfyUI) -> None:
    async with asyncio.timeout(20):
        while not comfyui.running:  # noqa: ASYNC110 - another thread makes it so
            await asyncio.sleep(0.01)


def test_a_job_is_answered_and_logged(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    assert [each["filename"] for each in handle(worker)["images"]] == ["SaveImage_4.png"]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["job"], line["event"]) for line in lines] == [("job-1", "begun"), ("job-1", "done")]
    assert lines[1]["images"] == 1


@pytest.mark.parametrize("number", [None, "", "a\nb", "é", "a/b", "a b", "..", "x" * 300])
def test_a_job_needs_an_id_that_can_stand_in_an_address(worker: Worker, number: Any) -> None:
    answer = asyncio.run(worker.handle({**JOB, "id": number}))
    assert answer == {"error": "The job has no id that can be used."}


def test_an_input_that_cannot_be_used_is_a_failed_job(
    worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asyncio.run(worker.handle({"id": "job-1", "input": None})) == {"error": "Please provide input"}
    last = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (last["event"], last["error"]) == ("failed", "Please provide input")


def test_a_bug_of_the_worker_is_a_sentence_and_its_traceback_is_in_the_log(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: Any) -> dict[str, Any]:
        raise KeyError("mood of comfyui-abc")

    monkeypatch.setattr(job, "run", broken)
    answer = handle(worker, comfy_org_api_key="comfyui-abc")
    assert answer == {"error": "An unexpected error occurred: KeyError: 'mood of …'"}
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (bug,) = [line for line in lines if line["event"] == "bug"]
    assert bug["traceback"].startswith("Traceback (most recent call last):")
    assert bug["traceback"].endswith("in broken\n    raise KeyError(\"mood of …\")\nKeyError: 'mood of …'\n")


def test_no_secret_is_in_an_answer_or_in_the_log(
    comfyui: ComfyUI, worker: Worker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUCKET_SECRET_ACCESS_KEY", "of-the-worker")
    comfyui.faults.error = "comfyui-abc and of-the-worker are refused"
    failed = handle(worker, comfy_org_api_key="comfyui-abc", workflow={"3": WORKFLOW["3"]})
    part = handle(worker, comfy_org_api_key="comfyui-abc")
    for said in (failed["details"], part["errors"]):
        assert said == [
            "Workflow execution error: Node Type: KSampler, Node ID: 3, Message: … and … are refused"
        ]
    assert "of-the-worker" not in capsys.readouterr().err


def test_a_worker_can_be_ended_after_a_job(worker: Worker) -> None:
    assert "refresh_worker" not in handle(worker)
    assert handle(worker, refresh_worker=True)["refresh_worker"] is True
    assert handle(replace(worker, refresh=True))["refresh_worker"] is True
    assert (
        asyncio.run(replace(worker, refresh=True).handle({"id": "x", "input": None}))["refresh_worker"]
        is True
    )


def test_or_comfyui_gives_its_memory_back_and_the_worker_stays(comfyui: ComfyUI, worker: Worker) -> None:
    handle(worker)
    assert comfyui.freed == []
    for each, given in ((worker, {"refresh_worker": "free"}), (replace(worker, free=True), {})):
        assert "refresh_worker" not in handle(each, **given)
        assert comfyui.freed.pop() == {"unload_models": True, "free_memory": True}


def test_progress_is_sent_and_ends_before_the_answer(worker: Worker) -> None:
    sent: list[tuple[str, int]] = []

    async def send(given: dict[str, Any], message: dict[str, Any]) -> None:
        await asyncio.sleep(0.01)
        sent.append((given["id"], message["percent"]))

    async def work() -> int:
        await replace(worker, send=send, interval=0.0).handle(JOB)
        count = len(sent)
        await asyncio.sleep(0.1)
        return count

    assert asyncio.run(work()) == len(sent) > 0
    assert {number for number, _ in sent} == {"job-1"}
    assert sent == sorted(sent)


# --- Jobs that are cancelled, stopped, or left open


def test_a_cancelled_job_has_no_answer_and_is_not_left_open(
    comfyui: ComfyUI, worker: Worker, open_jobs: JobFile
) -> None:
    comfyui.faults.endless = True

    async def work() -> None:
        task = asyncio.create_task(worker.handle(JOB))
        await at_work(comfyui)
        assert open_jobs.left() == {"job-1": comfyui.prompts[0]["prompt_id"]}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert open_jobs.left() == {}
    assert not comfyui.running


def test_a_job_that_ends_in_time_after_sigterm_is_answered(
    comfyui: ComfyUI, worker: Worker, terminations: list[int]
) -> None:
    comfyui.faults.endless = True

    async def work() -> dict[str, Any]:
        task = asyncio.create_task(replace(worker, termination=Termination(20.0)).handle(JOB))
        await at_work(comfyui)
        os.kill(os.getpid(), signal.SIGTERM)
        comfyui.faults.endless = False
        return await task

    assert len(asyncio.run(work())["images"]) == 1
    assert terminations == [signal.SIGTERM]


def test_a_job_that_does_not_is_ended_with_that_reason(
    comfyui: ComfyUI, worker: Worker, terminations: list[int], open_jobs: JobFile
) -> None:
    comfyui.faults.endless = True

    async def work() -> dict[str, Any]:
        task = asyncio.create_task(replace(worker, termination=Termination(0.1)).handle(JOB))
        await at_work(comfyui)
        os.kill(os.getpid(), signal.SIGTERM)
        return await task

    assert asyncio.run(work()) == {"error": STOPPED}
    assert terminations == [signal.SIGTERM]
    assert not comfyui.running, "interrupted"
    assert open_jobs.left() == {}


def test_one_that_does_not_even_then_is_answered_all_the_same(
    worker: Worker, terminations: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def stubborn(*_: Any) -> dict[str, Any]:
        try:
            begun.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(60)
        return {}

    monkeypatch.setattr(job, "run", stubborn)
    monkeypatch.setattr(handler, "_LAST_SECOND", 0.1)

    async def work() -> dict[str, Any]:
        task = asyncio.create_task(replace(worker, termination=Termination(0.1)).handle(JOB))
        await begun.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            return await task

    assert asyncio.run(work()) == {"error": STOPPED}
    assert terminations == [signal.SIGTERM]


def test_one_that_begins_after_the_grace_is_ended_at_once(
    comfyui: ComfyUI, worker: Worker, terminations: list[int]
) -> None:
    comfyui.faults.endless = True

    async def work() -> list[dict[str, Any]]:
        stopped = replace(worker, termination=Termination(0.0))
        first = asyncio.create_task(stopped.handle(JOB))
        await at_work(comfyui)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            return [await first, await stopped.handle({**JOB, "id": "job-2"})]

    assert asyncio.run(work()) == [{"error": STOPPED}] * 2
    assert len(comfyui.prompts) == 1
    assert terminations == [signal.SIGTERM]


def test_jobs_of_a_worker_that_was_killed_are_known_to_the_next(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from worker.job_file import JobFile\n"
        "jobs = JobFile(Path(sys.argv[1]))\n"
        "for job in ('one', 'two', 'three'): jobs.begin(job)\n"
        "jobs.end('two'); jobs.note('three', 'its prompt'); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "local" / "jobs.json"
    argv = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(argv, cwd=ROOT / "scripts", check=False, timeout=20).returncode == -signal.SIGKILL
    jobs = JobFile(path)
    assert jobs.claim() == {"one": "", "three": "its prompt"}
    jobs.end("one")
    assert JobFile(path).left() == {"three": "its prompt"}, "until it is told, too"
    jobs.end("three")
    assert JobFile(path).left() == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 2, "jobs": {"a": ""}}', '{"schema": 1, "jobs": 5}']
)
def test_a_damaged_job_file_holds_no_jobs(tmp_path: Path, text: str) -> None:
    (tmp_path / "jobs.json").write_text(text)
    assert JobFile(tmp_path / "jobs.json").left() == {}


def test_a_job_file_that_cannot_be_written_costs_no_job(
    worker: Worker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in the way").touch()
    blocked = replace(worker, open_jobs=JobFile(tmp_path / "in the way" / "jobs.json"))
    assert "images" in handle(blocked)
    assert "cannot be written" in capsys.readouterr().err
