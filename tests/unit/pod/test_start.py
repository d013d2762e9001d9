"""start.sh as it is rendered, run by a real shell: who watches whom, and what is left when one is killed.

Programs of the test's stand in the place of ComfyUI, fetch, doctor and services; all else is real.
"""

from __future__ import annotations

import contextlib
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

from pod.util import ports

if TYPE_CHECKING:
    from collections.abc import Iterator

COMFYUI = """
import http.server, os, subprocess, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/system_stats" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Answer)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)", "worker"])
print("serving", os.getpid(), flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    pass
"""
STUB = """
import os, signal, sys, time
def main(arguments):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # One write: what is half there would be read.
    sys.stderr.write("{name} begins " + f"{{os.getpid()}} {{os.environ.get('WEB_PASSWORD')}}\\n")
    sys.stderr.flush()
    time.sleep({seconds})
    return 0
"""


class Pod:
    """A folder in the place of a container."""

    def __init__(self, root: Path, flags_json: dict[str, Any]) -> None:
        self.root = root
        self.run = root / "run"
        opt = root / "opt"
        shutil.copytree(ROOT / "scripts" / "pod", opt / "pod")
        shutil.copy(ROOT / "scripts" / "__main__.py", opt)
        for name, seconds in (("fetch", 120), ("doctor", 0), ("services", 120)):
            (opt / "pod" / "commands" / f"{name}.py").write_text(STUB.format(name=name, seconds=seconds))
        (opt / "flags.json").write_text(json.dumps(flags_json))
        (opt / "models.json").write_text('{"schema": 1, "models": []}')
        (opt / "folders.json").write_text('{"schema": 1, "folders": {"loras": ["loras"]}}')
        (root / "main.py").write_text(COMFYUI)
        (root / "meminfo").write_text("MemTotal: 67108864 kB\n")
        script = (ROOT / "tests" / "golden" / "lazy" / "start.sh").read_text()
        for old, new in (
            ("cd /opt/ComfyUI", f"cd {root}"),
            ("/opt/venv/bin/python", sys.executable),
            ("/usr/bin/python3", sys.executable),
            ("PAUSES=(1 5 25)", "PAUSES=(0.1 0.1 0.1)"),
        ):
            assert old in script
            script = script.replace(old, new)
        self.script = root / "start.sh"
        self.script.write_text(script)
        self.port = free_port()
        self.log = root / "log"
        self.starts: list[subprocess.Popen[bytes]] = []

    def start(self, _redirect: str = "", **settings: str) -> subprocess.Popen[bytes]:
        """Run start.sh; what it says goes to one log."""
        environ = {
            "PATH": f"{ROOT}/tests/fakes:{os.environ['PATH']}",
            "PODKILN_ROOT": str(self.root / "opt"),
            "PODKILN_RUN": str(self.run),
            "PODKILN_LOCAL": str(self.root / "local"),
            "PODKILN_CGROUP_ROOT": str(self.root / "cgroup"),
            "PODKILN_MEMINFO": str(self.root / "meminfo"),
            "WORKSPACE": str(self.root / "workspace"),
            "COMFYUI_PORT": str(self.port),
            "COMFYUI_ARGS": "--cpu",
            **settings,
        }
        with self.log.open("ab") as log:
            command = ["bash", "-c", f"{'' if '|' in _redirect else 'exec '}bash {self.script} {_redirect}"]
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        self.starts.append(process)
        return process

    def until(self, text: str, count: int = 1) -> str:
        """Wait until the log holds a text so many times; returns the log."""
        end = time.monotonic() + 30
        while (said := self.log.read_text()).count(text) < count:
            assert time.monotonic() < end, said
            time.sleep(0.02)
        return said

    def process(self, begins: str) -> int:
        """Return the process that said last that it begins."""
        return int(self.log.read_text().rpartition(f"{begins} ")[2].split()[0])

    def supervisor(self) -> int:
        """Return the parent of ComfyUI."""
        status = Path(f"/proc/{self.process('serving')}/status").read_text()
        return int(status.partition("PPid:")[2].split()[0])

    def living(self) -> list[str]:
        """Return the command lines of all processes of this pod that run."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environ = (folder / "environ").read_bytes()
                if f"PODKILN_RUN={self.run}".encode() in environ:
                    found.append((folder / "cmdline").read_text().replace("\0", " "))
        return found

    def gone(self) -> None:
        """Wait until nothing of the pod runs."""
        end = time.monotonic() + 15
        while left := self.living():
            assert time.monotonic() < end, left
            time.sleep(0.05)


@pytest.fixture
def pod(tmp_path: Path, flags_json: dict[str, Any]) -> Iterator[Pod]:
    pod = Pod(tmp_path, flags_json)
    yield pod
    for process in pod.starts:
        with process:
            process.kill()
    with contextlib.suppress(AssertionError):
        pod.gone()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"PODKILN_RUN={pod.run}".encode() in (folder / "environ").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)


def test_a_stop_ends_all_of_it(pod: Pod) -> None:
    start = pod.start(WEB_USER="me", WEB_PASSWORD="canary")
    said = pod.until("podkiln: ready in")
    assert "services begins" in said
    assert said.count("canary") == 1, "services alone knows it"
    start.terminate()
    assert start.wait(20) == 0
    assert pod.log.read_text().endswith("podkiln: stopping\n")
    pod.gone()


@pytest.mark.parametrize("name", ["fetch", "services"])
def test_a_service_that_is_killed_is_said_and_started_again_but_not_for_ever(pod: Pod, name: str) -> None:
    pod.start()
    pod.until("podkiln: ready in")
    for count in range(1, 5):
        pod.until(f"{name} begins", count)
        assert (pod.run / f"{name}.kept").exists(), "jobs wait for a fetch that comes again"
        os.kill(pod.process(f"{name} begins"), signal.SIGKILL)
        if count < 4:
            pod.until(f"podkiln: {name} was killed (signal 9); it is started again in 0.1 s ({count} of 3).")
    said = pod.until(f"podkiln: {name} was killed again (signal 9), so it stays down.")
    time.sleep(0.5)
    assert pod.log.read_text().count(f"{name} begins") == 4
    assert not (pod.run / f"{name}.kept").exists()
    assert "ComfyUI has ended" not in said


def test_a_service_that_ends_by_itself_is_left_alone(pod: Pod) -> None:
    pod.start()
    pod.until("doctor begins")
    pod.until("podkiln: ready in")
    late = time.monotonic() + 20
    while (pod.run / "doctor.kept").exists():
        assert time.monotonic() < late, "it is still to be begun again"
        time.sleep(0.05)
    time.sleep(0.5)
    assert pod.log.read_text().count("doctor begins") == 1


def test_when_the_supervisor_is_killed_comfyui_ends_and_the_pod_starts_anew_once(pod: Pod) -> None:
    start = pod.start(WEB_USER="me", WEB_PASSWORD="canary", JUPYTER_PASSWORD="")
    pod.until("podkiln: ready in")
    os.kill(pod.supervisor(), signal.SIGKILL)
    pod.until("podkiln: the supervisor of ComfyUI was killed (signal 9), so the pod starts again, once.")
    said = pod.until("podkiln: ready in", 2)
    assert said.count("canary") == 2, "services knows it again"
    assert "is taken" not in said
    assert sum("--port" in line for line in pod.living()) == 1
    os.kill(pod.supervisor(), signal.SIGKILL)
    assert start.wait(20) == 137
    pod.gone()
    assert (
        "podkiln: the supervisor of ComfyUI was killed again (signal 9), so the pod stops."
        in pod.log.read_text()
    )


def test_a_noted_group_that_is_not_proven_to_be_comfyuis_is_left_alone(pod: Pod) -> None:
    pod.start()
    pod.until("podkiln: ready in")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], process_group=0) as other:
        (pod.run / "processes" / "comfyui").write_text(f"{other.pid} 1 0 {os.getsid(other.pid)} 00\n")
        os.kill(pod.supervisor(), signal.SIGKILL)
        pod.until("podkiln: ready in", 2)
        assert other.poll() is None
        other.kill()


def test_when_start_sh_is_killed_nothing_is_left_and_it_can_start_again(pod: Pod) -> None:
    """As on vast.ai, where start.sh is not the container's first process."""
    start = pod.start()
    pod.until("podkiln: ready in")
    start.kill()
    start.wait()
    pod.start()
    pod.until("podkiln: ready in", 2)
    assert pod.log.read_text().count("running in this pod already") == 0


def test_all_of_it_can_be_killed_and_started_again(pod: Pod) -> None:
    """Also what ComfyUI has started, which the kernel tells nothing."""
    start = pod.start()
    pod.until("podkiln: ready in")
    supervisor = pod.supervisor()
    for number in (start.pid, supervisor):
        os.kill(number, signal.SIGKILL)
    start.wait()
    assert any("worker" in line for line in pod.living())
    pod.start()
    said = pod.until("podkiln: ready in", 2)
    assert "podkiln: comfyui of an earlier start was still running, and is ended." in said
    assert sum("worker" in line for line in pod.living()) == 1


def test_a_second_start_beside_the_first_ends(pod: Pod) -> None:
    pod.start()
    pod.until("podkiln: ready in")
    assert pod.start().wait(20) == 0
    assert "start.sh is running in this pod already; this one ends." in pod.log.read_text()


def test_a_port_that_another_comfyui_has_ends_the_start(pod: Pod) -> None:
    """It is called main.py too, and is not ours."""
    other = subprocess.Popen(
        [sys.executable, str(pod.root / "main.py"), "--port", str(pod.port)], process_group=0
    )
    try:
        end = time.monotonic() + 10
        while not ports.taken(pod.port):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert pod.start().wait(20) == 69
        said = pod.log.read_text()
        assert f"ComfyUI cannot work here: port {pod.port} is taken by python" in said
        assert f"(process {other.pid}), and ComfyUI is to listen there: set COMFYUI_PORT" in said
        assert "serving" not in said
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()


@pytest.mark.parametrize("log", [">&- 2>/dev/full", ">&- 2>&-", "2>&1 | head -n 1 >&-"])
def test_what_cannot_be_said_stops_no_start(pod: Pod, log: str) -> None:
    """A full log disk, and a reader that has left."""
    process = pod.start(_redirect=log)
    end = time.monotonic() + 20
    while not any("worker" in line for line in pod.living()):
        assert time.monotonic() < end, (pod.living(), process.poll())
        time.sleep(0.05)
    process.terminate()


def test_what_is_no_lock_is_said_and_not_waited_for(pod: Pod) -> None:
    pod.run.mkdir()
    os.mkfifo(pod.run / "lock")
    assert pod.start().wait(10) == 70
    assert (
        "/lock is not a plain file, but the lock of a start belongs there: remove it" in pod.log.read_text()
    )


def test_a_folder_called_ended_stops_no_start(pod: Pod) -> None:
    (pod.run / "ended").mkdir(parents=True)
    pod.start()
    pod.until("podkiln: ready in")


def test_a_node_that_cannot_be_fetched_costs_its_node_alone(pod: Pod) -> None:
    tree = {"repo": "https://github.com/o/n", "commit": "c" * 40, "tree": "d" * 40, "patches": []}
    node = {**tree, "id": "asks", "folder": "Asks", "included": False, "models": ["film"], "environment": {}}
    listed = {"schema": 1, "nodes": [{**node, "submodules": [], "code": []}]}
    (pod.root / "opt" / "nodes.json").write_text(json.dumps(listed))
    pod.start(NODES="asks", GITHUB_ENDPOINT=f"http://127.0.0.1:{free_port()}", PODKILN_FETCH_TRIES="1")
    said = pod.until("podkiln: ready in")
    assert said.index("custom node asks will not load: ") < said.index("serving")
    assert list((pod.root / "local" / "nodes").iterdir()) == []
