"""What takes jobs beside ComfyUI, as real processes of a real supervisor: restarts, ends, order, secrets."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from unit.pod.supervisor.test_supervisor import SERVE, Pod

from pod.supervisor import job_worker
from pod.util import child_processes
from pod.util.secret_variables import JOBS
from worker import handler, termination

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDPOINT = {"PODKILN_SERVE": "runpod", "RUNPOD_WEBHOOK_GET_JOB": "http://127.0.0.1:9/job-take/$ID?gpu=X"}


class ServingPod(Pod):
    """A pod with a program of the test's in the place of `/opt/podkiln`, which takes the jobs."""

    def serve(self, worker: str, comfyui: str = SERVE, **settings: Any) -> ServingPod:
        opt = self.root / "opt.py"
        opt.write_text(worker)
        own = {"PODKILN_ROOT": str(opt), "PODKILN_LOCAL": str(self.root / "local")}
        self.environ = {**ENDPOINT, **own, **settings.pop("environ", {})}
        self.start(comfyui, **settings)
        return self

    def note_job(self) -> None:
        """Note an open job, as the worker does."""
        (self.root / "local").mkdir()
        (self.root / "local" / "jobs.json").write_text(json.dumps({"schema": 1, "jobs": {"a": ""}}))


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[ServingPod]:
    pod = ServingPod(tmp_path)
    yield pod
    with pod.process:
        pod.process.kill()


def test_it_is_the_images_python_without_the_users_packages() -> None:
    assert job_worker.command("/opt/venv/bin/python", ENDPOINT) == [
        "/opt/venv/bin/python", "-I", "/opt/podkiln", "worker",
    ]  # fmt: skip
    assert job_worker.command("/p", {"PODKILN_SERVE": "http"}) == ["/p", "-I", "/opt/podkiln", "serve"]
    assert job_worker.command("/p", {"RUNPOD_WEBHOOK_GET_JOB": "x"}) is None, "of an image that takes none"
    assert job_worker.command("/p", {"PODKILN_SERVE": "runpod"}) is None, "by hand, without an endpoint"


def test_it_starts_beside_comfyui_and_knows_what_comfyui_does_not(pod: ServingPod) -> None:
    """The names of all secrets are told by both; their lines go to stdout as they come."""
    tell = f"import os; print('{{}}', *(name for name in {JOBS!r} if name in os.environ), flush=True)\n"
    pod.serve(
        tell.format("worker:") + "import time; time.sleep(60)",
        tell.format("comfyui:") + SERVE,
        environ={**dict.fromkeys(JOBS, "canary"), "WEB_PASSWORD": "canary"},
    ).until("podkiln: ready in")
    pod.until("worker:")
    assert f"worker: {' '.join(JOBS)}\n" in pod.log
    assert "comfyui:\n" in pod.log
    assert pod.boot["worker"] == {"spawned": pytest.approx(pod.boot["spawned"], abs=2), "restarts": []}
    assert child_processes.group(str(pod.run), "worker")
    pod.process.terminate()
    assert pod.end()[0] == 0


def test_its_own_end_ends_the_pod_with_its_exit_code(pod: ServingPod) -> None:
    """As REFRESH_WORKER has it: the platform starts another one."""
    code, _, err = pod.serve("import sys; sys.exit(0)").end()
    assert code == 0
    assert err.splitlines()[-1] == "podkiln: The worker has ended, so the pod stops: exit code 0."


def test_what_another_start_would_not_change_is_not_tried_again(pod: ServingPod) -> None:
    code, _, err = pod.serve("import sys; print('podkiln: The SDK is missing.'); sys.exit(69)").end()
    assert (code, "started again" in err) == (69, False)


def test_one_that_crashes_is_started_three_times_again_and_then_the_pod_stops(pod: ServingPod) -> None:
    code, out, err = pod.serve("print('begun', flush=True); raise RuntimeError('no luck')").end()
    assert (code, out.splitlines().count("begun")) == (1, 4)
    said = [line for line in err.splitlines() if "The worker has ended" in line]
    assert [line.rpartition("(")[2] for line in said[:3]] == ["1 of 3).", "2 of 3).", "3 of 3)."]
    assert said[3] == (
        "podkiln: The worker has ended 4 times, so the pod stops: exit code 1: RuntimeError: no luck."
    )
    restarts = pod.boot["worker"]["restarts"]
    assert ["spawned" in each for each in restarts] == [True, True, True, False]
    assert pod.boot["restarts"] == [], "ComfyUI has not ended"


WAITS = """
import signal, sys, time
def told(*_):
    print("worker told", flush=True)
    time.sleep({seconds})
    print("worker ends", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
print("worker up", flush=True)
time.sleep(60)
"""


def test_sigterm_reaches_it_first_and_comfyui_when_it_has_ended(pod: ServingPod) -> None:
    pod.serve(WAITS.format(seconds=0.5)).until("podkiln: ready in")
    pod.until("worker up")
    pod.process.terminate()
    code, out, _ = pod.end()
    assert code == 0
    order = ["worker told", "worker ends", "Stopped server"]
    assert [line for line in out.splitlines() if line in order] == order


@pytest.mark.parametrize("busy", [True, False])
def test_one_that_does_not_end_is_killed_the_later_if_it_has_a_job(
    pod: ServingPod, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    """The seconds are shorter here, in the supervisor's own process."""
    pod.prelude = "from pod.supervisor import job_worker; job_worker.GRACE, job_worker.IDLE_GRACE = 1.5, 0.3"
    if busy:
        pod.note_job()
    pod.serve(WAITS.format(seconds=60)).until("worker up")
    pod.until("podkiln: ready in")
    begun = time.monotonic()
    pod.process.terminate()
    assert pod.end()[0] == 0
    took = time.monotonic() - begun
    assert took < 5
    assert (took > 1.4) == busy


def test_its_grace_is_longer_than_that_of_its_jobs_and_leaves_docker_time_for_comfyui() -> None:
    jobs = termination.GRACE + handler._LAST_SECOND
    assert jobs < job_worker.GRACE <= 10 - 1 - 0.5


def test_when_comfyui_cannot_be_kept_alive_it_ends_too(pod: ServingPod) -> None:
    code, _, err = pod.serve(WAITS.format(seconds=0), "raise SystemExit(2)").end()
    assert code == 2
    assert err.splitlines()[-1].startswith("podkiln: ComfyUI has ended before it served")
    assert child_processes.group(str(pod.run), "worker") is None


def test_it_is_killed_with_its_supervisor(pod: ServingPod) -> None:
    pod.serve(WAITS.format(seconds=60)).until("worker up")
    group = child_processes.group(str(pod.run), "worker")
    assert group
    pod.process.kill()
    end = time.monotonic() + 5
    while True:
        try:
            os.kill(group, 0)
        except ProcessLookupError:
            break
        if Path(f"/proc/{group}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        assert time.monotonic() < end
        time.sleep(0.02)


def test_without_an_endpoint_comfyui_runs_alone_and_that_is_said(pod: ServingPod) -> None:
    pod.serve("print('worker up')", environ={"RUNPOD_WEBHOOK_GET_JOB": ""}).until("podkiln: ready in")
    assert "podkiln: This is no worker of a RunPod endpoint" in pod.log
    assert "worker" not in pod.boot
    pod.process.send_signal(signal.SIGTERM)
    assert pod.end()[0] == 0
