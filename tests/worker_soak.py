"""The worker's faults, many times over: by hand, since it takes minutes.

    .venv/bin/python tests/worker_soak.py [COUNT]

COUNT (20) times the worker is killed while a job runs, and as often ComfyUI: each job fails with its reason
and the next one works. Then 100 jobs in a row: what the worker has of memory, open files and files on disk
does not grow. Prints a line a part; ends with 1 at the first that is otherwise.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "tests")]

import worker_process  # noqa: E402 - the path comes first
from servers.runpod_endpoint import Endpoint, Job  # noqa: E402
from unit.test_contract_comfyui import SAVED, Server  # noqa: E402

from pod.util.say import say  # noqa: E402
from podkiln.render import flags_json  # noqa: E402
from worker.handler import CRASHED, STOPPED  # noqa: E402
from worker.termination import GRACE  # noqa: E402

LONG = {**SAVED, **{str(number): SAVED["1"] for number in range(100, 1000)}}
KILLED = "ComfyUI ended while it worked on this job: exit code 137, SIGKILL."


def begun(endpoint: Endpoint, comfyui: Server) -> Job:
    """Queue a job that does not end; return it when ComfyUI works on it."""
    job = endpoint.submit({"workflow": LONG})
    endpoint.wait(lambda: comfyui.get("/queue")["queue_running"])
    return job


def expect(endpoint: Endpoint, job: Job, status: str, error: str | None = None) -> None:
    """Wait for a job's end, which must be this one."""
    shown = endpoint.end(job, 60)
    assert (shown["status"], shown.get("error")) == (status, error), shown
    assert "Traceback" not in json.dumps(shown)


def kill_workers(endpoint: Endpoint, comfyui: Server, folder: Path, count: int) -> None:
    """Kill a worker while its job runs, and start the next."""
    lost: Job | None = None
    for _ in range(count + 1):
        with worker_process.started(endpoint, folder, comfyui.port) as worker:
            if lost:
                expect(endpoint, lost, "FAILED", CRASHED)
                expect(endpoint, endpoint.submit({"workflow": SAVED}), "COMPLETED")
            lost = begun(endpoint, comfyui)
            worker.process.kill()
            worker.process.wait()


def kill_comfyuis(endpoint: Endpoint, root: Path, folder: Path, count: int) -> None:
    """Kill a ComfyUI while a job runs on it, and start the next."""
    with worker_process.started(endpoint, folder, 1) as worker:
        for _ in range(count):
            with Server(root, f"--output-directory={root}/out") as comfyui:
                worker.use(comfyui.port)
                job = begun(endpoint, comfyui)
                comfyui.process.kill()
                comfyui.process.wait()
            worker.note_end_of_comfyui()
            expect(endpoint, job, "FAILED", KILLED)
            with Server(root, f"--output-directory={root}/out") as again:
                worker.use(again.port)
                expect(endpoint, endpoint.submit({"workflow": SAVED}), "COMPLETED")
        assert worker.process.poll() is None
        assert "Traceback" not in worker.said()


def stop_worker(endpoint: Endpoint, comfyui: Server, folder: Path) -> None:
    """Stop a worker whose job does not end by itself within its grace."""
    with worker_process.started(endpoint, folder, comfyui.port) as worker:
        job = begun(endpoint, comfyui)
        began = time.monotonic()
        worker.process.terminate()
        expect(endpoint, job, "FAILED", STOPPED)
        assert time.monotonic() - began < GRACE + 2
        assert worker.process.wait(20) == 0
        endpoint.wait(lambda: not comfyui.get("/queue")["queue_running"])


def run_many(endpoint: Endpoint, comfyui: Server, folder: Path, count: int) -> None:
    """Run jobs in a row; the second half takes nothing more."""
    picture = {"name": "cat.png", "image": "iVBORw0KGgo="}
    with worker_process.started(endpoint, folder, comfyui.port) as worker:
        taken = []
        for number in range(count):
            expect(endpoint, endpoint.submit({"workflow": SAVED, "images": [picture]}), "COMPLETED")
            if number % (count // 4) == count // 4 - 1:
                taken.append(use(worker.process.pid, folder))
        say(f"memory (KiB), open files, files: {taken}")
        assert taken[-1][0] < taken[1][0] * 1.05
        assert taken[-1][1:] == taken[1][1:]


def use(pid: int, folder: Path) -> tuple[int, int, int]:
    """Return a process's memory in KiB, its open files, and the files that it left."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    memory = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return memory, len(os.listdir(f"/proc/{pid}/fd")), sum(1 for _ in folder.iterdir())  # noqa: PTH208


def main(count: int = 20) -> None:
    """Run all of it."""
    os.environ["CONTRACT_PROMPT_SECONDS"] = "0.05"
    with tempfile.TemporaryDirectory() as name, Endpoint() as endpoint:
        root = Path(name)
        (root / "flags.json").write_text(json.dumps(flags_json.to_json("0.33.0", [])))
        words = f"--output-directory={root}/out", f"--input-directory={root}/in"
        began = time.monotonic()
        with Server(root, *words) as comfyui:
            kill_workers(endpoint, comfyui, root / "workers", count)
        say(f"{count} workers killed: {time.monotonic() - began:.0f} s")
        with Server(root, *words) as comfyui:  # another: the last job of a killed worker is still in that one
            stop_worker(endpoint, comfyui, root / "stopped")
        say(f"a worker stopped: {time.monotonic() - began:.0f} s")
        kill_comfyuis(endpoint, root, root / "comfyuis", count)
        say(f"{count} ComfyUIs killed: {time.monotonic() - began:.0f} s")
        with Server(root, *words) as comfyui:
            run_many(endpoint, comfyui, root / "many", 100)
        say(f"100 jobs: {time.monotonic() - began:.0f} s")
        assert endpoint.refused == [], endpoint.refused


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
