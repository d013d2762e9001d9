"""The worker's process with RunPod's real SDK: on a fake endpoint, and a ComfyUI that is killed, too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import runpod_sdk
import worker_process
from servers import s3
from servers.comfyui import ComfyUI, Faults
from servers.runpod_endpoint import ENDPOINT, KEY, Endpoint
from unit.test_contract_comfyui import SAVED, Server, root

from worker.handler import CRASHED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker_process import Started

__all__ = ["root"]  # a fixture: the folder that the contract server needs

# A node takes CONTRACT_PROMPT_SECONDS; this has enough of them never to end.
LONG = {**SAVED, **{str(number): SAVED["1"] for number in range(100, 200)}}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worker")


@pytest.fixture
def comfyui(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("CONTRACT_PROMPT_SECONDS", "0.1")
    with Server(root, f"--output-directory={tmp_path}") as server:
        yield server


@pytest.fixture(scope="module")
def process(endpoint: Endpoint, folder: Path) -> Iterator[Started]:
    with worker_process.started(endpoint, folder, 1) as running:
        yield running


@pytest.fixture
def worker(process: Started, comfyui: Server, endpoint: Endpoint) -> Iterator[Started]:
    """The one process, on this test's ComfyUI."""
    process.use(comfyui.port)
    endpoint.refused.clear()
    yield process
    assert process.process.poll() is None
    assert "Traceback" not in process.said()


def run(endpoint: Endpoint, workflow: dict[str, Any] = SAVED, **given: Any) -> dict[str, Any]:
    return endpoint.end(endpoint.submit({"workflow": workflow, **given}))


def begun(endpoint: Endpoint, comfyui: Server) -> Any:
    """Queue a job that does not end, and return it when ComfyUI works on it."""
    job = endpoint.submit({"workflow": LONG})
    endpoint.wait(lambda: comfyui.get("/queue")["queue_running"])
    return job


def test_a_job_goes_through(worker: Started, endpoint: Endpoint) -> None:
    job = endpoint.submit({"workflow": SAVED})
    shown = endpoint.end(job)
    assert shown["status"] == "COMPLETED"
    assert [each["filename"] for each in shown["output"]["images"]] == ["lake_00001_.png"]
    assert [each["type"] for each in job.progress] == ["progress"] * len(job.progress)
    assert job.progress
    assert endpoint.refused == []
    endpoint.wait(lambda: endpoint.pings)


def test_what_fails_has_failed_for_the_platform_too(worker: Started, endpoint: Endpoint) -> None:
    shown = run(endpoint, {"1": {"class_type": "Gone", "inputs": {}}})
    assert shown["status"] == "FAILED"
    assert shown["error"].startswith("Workflow validation failed:\n• Node 'Gone' not found.")


def test_a_client_of_worker_comfyui_works_as_it_is(worker: Started, endpoint: Endpoint) -> None:
    """RunPod's own client library, as worker-comfyui's users call it."""
    code = (
        "import json, runpod, sys; runpod.api_key = sys.argv[1]\n"
        "there = runpod.Endpoint(sys.argv[2]); given = json.loads(sys.argv[3])\n"
        "print(json.dumps([there.run_sync(given, timeout=20), there.run(given).output(timeout=20)]))"
    )
    words = [KEY, ENDPOINT, json.dumps({"input": {"workflow": SAVED}})]
    environment = runpod_sdk.environment(RUNPOD_ENDPOINT_BASE_URL=f"{endpoint.url}/client")
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"filename": "lake_0000') == 2


def test_a_job_is_cancelled_in_each_phase(worker: Started, endpoint: Endpoint, comfyui: Server) -> None:
    job = begun(endpoint, comfyui)
    waiting = endpoint.submit({"workflow": SAVED})
    endpoint.cancel(waiting)  # before a worker has it
    endpoint.cancel(job)  # while it runs
    endpoint.wait(lambda: not comfyui.get("/queue")["queue_running"])
    comfyui.post({"prompt": LONG, "prompt_id": "of-another"})
    behind = endpoint.submit({"workflow": SAVED})
    endpoint.wait(lambda: comfyui.get("/queue")["queue_pending"])
    endpoint.cancel(behind)  # while it waits in ComfyUI
    endpoint.wait(lambda: not comfyui.get("/queue")["queue_pending"])
    assert comfyui.get("/queue")["queue_running"][0][1] == "of-another"
    assert {job.output and job.output["type"], behind.output} <= {"progress", None}, "no result is sent"


def test_what_the_platform_loses_is_asked_for_again(worker: Started, endpoint: Endpoint) -> None:
    endpoint.faults.answers = {"job-take": [500, 502], "job-done": [503], "job-stop": [500]}
    endpoint.faults.cut = {"job-take": 1, "ping": 1}
    endpoint.faults.slow = {"job-done": 0.3}
    assert run(endpoint)["status"] == "COMPLETED"
    assert endpoint.faults.answers["job-done"] == []
    endpoint.faults.slow.clear()


def test_a_result_that_the_platform_would_lose_fails_with_that_sentence(
    worker: Started, root: Path, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRACT_FILE_MIB", "25")
    with Server(root, f"--output-directory={tmp_path}") as server:
        worker.use(server.port)
        shown = run(endpoint)
    assert shown["status"] == "FAILED"
    assert shown["error"].startswith("The results of this job are larger than 20 MB as base64, which RunPod")
    assert endpoint.refused == []


def test_a_websocket_that_is_cut_costs_nothing(worker: Started, endpoint: Endpoint) -> None:
    with ComfyUI(Faults(drop_socket=True)) as cut:
        worker.use(int(cut.url.rpartition(":")[2]))
        assert run(endpoint, {"4": {"class_type": "SaveImage", "inputs": {}}})["status"] == "COMPLETED"
        assert cut.connections > 1


def test_what_a_job_may_write_with_is_said_nowhere(worker: Started, endpoint: Endpoint) -> None:
    """Its bucket is at an address of the worker's own network, too."""
    config = {"endpointUrl": "http://127.0.0.1:9", "accessId": "AKIAOFTHEJOB", "bucketName": "mine"}
    job = endpoint.submit({"workflow": SAVED}, s3Config={**config, "accessSecret": "secret-of-the-job"})
    shown = endpoint.end(job)
    said = "lake_00001_.png could not be written to the bucket mine at 127.0.0.1:9: its address is not one of"
    assert (shown["status"], shown["error"]) == ("FAILED", f"{said} the public internet.")
    for secret in ("AKIAOFTHEJOB", "secret-of-the-job"):
        assert secret not in worker.said() + json.dumps(shown)


def test_a_comfyui_that_is_killed_costs_its_job_alone(
    worker: Started, root: Path, tmp_path: Path, endpoint: Endpoint, comfyui: Server
) -> None:
    job = begun(endpoint, comfyui)
    comfyui.process.kill()
    comfyui.process.wait()
    worker.note_end_of_comfyui()
    shown = endpoint.end(job)
    assert (shown["status"], shown["error"]) == (
        "FAILED",
        "ComfyUI ended while it worked on this job: exit code 137, SIGKILL.",
    )
    with Server(root, f"--output-directory={tmp_path}") as again:
        worker.use(again.port)
        assert run(endpoint)["status"] == "COMPLETED"


def test_a_worker_that_is_killed_costs_its_job_alone_and_one_that_is_stopped_none(
    comfyui: Server, tmp_path: Path
) -> None:
    with Endpoint() as endpoint:
        with worker_process.started(endpoint, tmp_path / "w", comfyui.port) as first:
            job = begun(endpoint, comfyui)
            first.process.kill()
            first.process.wait()
        with worker_process.started(endpoint, tmp_path / "w", comfyui.port) as second:
            shown = endpoint.end(job)
            assert (shown["status"], shown["error"]) == ("FAILED", CRASHED)
            told = len(endpoint.pings)
            endpoint.wait(lambda: len(endpoint.pings) > told + 1)
            assert [each for each in endpoint.pings[told:] if "job_id" in each] == [], "of the killed one"
            last = endpoint.submit({"workflow": SAVED, "refresh_worker": "free"})
            endpoint.wait(lambda: comfyui.get("/queue")["queue_running"])
            os.kill(second.process.pid, signal.SIGTERM)
            assert endpoint.end(last)["status"] == "COMPLETED"
            assert second.process.wait(20) == 0
            assert "Traceback" not in second.said()
        assert endpoint.refused == []


def test_several_jobs_at_once_with_their_results_in_a_bucket(comfyui: Server, tmp_path: Path) -> None:
    """A worker that was warmed up before, and gives ComfyUI's memory back after each job."""
    warm = tmp_path / "warm.json"
    warm.write_text(json.dumps(SAVED))
    with s3.serve(runpod_sdk.environment()) as store, Endpoint() as endpoint:
        bucket = {
            "BUCKET_ENDPOINT_URL": store.url,
            "BUCKET_ACCESS_KEY_ID": s3.KEY_ID,
            "BUCKET_SECRET_ACCESS_KEY": s3.SECRET,
        }
        variables = {"WORKER_CONCURRENCY": "3", "WARMUP_WORKFLOW": str(warm), "REFRESH_WORKER": "free"}
        jobs = [endpoint.submit({"workflow": SAVED}) for _ in range(3)]
        with worker_process.started(endpoint, tmp_path / "w", comfyui.port, **bucket, **variables) as worker:
            shown = [endpoint.end(job) for job in jobs]
            said = worker.said()
        assert endpoint.refused == []
    assert "warm-up: done in" in said
    assert endpoint.batches[0] == 3
    entries = [each["output"]["images"][0] for each in shown]
    assert sorted(each["filename"] for each in entries) == [f"lake_0000{number}_.png" for number in (2, 3, 4)]
    for job, entry in zip(jobs, entries, strict=True):
        assert f"/{job.id}/night/{entry['filename']}?" in entry["data"]
    assert s3.SECRET not in said
    assert s3.SECRET not in json.dumps(shown)
