"""The supervisor, as a real process with real children: what it passes on, restarts, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from registries import free_port

from pod.util import child_processes

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTS = Path(__file__).parents[4] / "scripts"
# The supervisor with short pauses, and a program of the test's in ComfyUI's place.
DRIVER = """
import sys
sys.path.insert(0, {scripts!r})
from pod.commands import run
from pod.supervisor import boot_timeline
from pod.util import restart
restart.COMFYUI = restart.RestartPolicy(({pause}, 0.05, 0.05), {steady})
boot_timeline.PAUSE = 0.02
{prelude}
sys.exit(run.main(["{parent}", "{stop}", sys.executable, "-u", {program!r}]))
"""
SERVE = """
import http.server, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/system_stats" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
port = int(sys.argv[-1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Answer)
print("serving", os.getpid())
try:
    server.serve_forever()
except KeyboardInterrupt:
    print("Stopped server")
"""


class Pod:
    """The supervisor and what surrounds it: a run folder, a volume, and pipes in the place of start.sh."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = root / "run"
        self.workspace = root / "workspace"
        self.port = free_port()
        self.run.mkdir()
        self.workspace.mkdir()
        (self.run / "comfyui.args").write_text(f"--port\0{self.port}\0")
        self.environ: dict[str, str] = {}
        self.prelude = ""
        self.process: subprocess.Popen[str]

    def start(
        self, program: str, *, steady: float = 600, stop: float = 5, parent: int = 1, pause: float = 0.05
    ) -> Pod:
        """Start the supervisor; `parent` is whom it asks to stop."""
        path = self.root / "main.py"
        path.write_text(textwrap.dedent(program))
        words = {
            "scripts": str(SCRIPTS),
            "program": str(path),
            "steady": steady,
            "stop": stop,
            "parent": parent,
            "pause": pause,
            "prelude": self.prelude,
        }
        environ = {
            "PATH": os.environ["PATH"],
            "PODKILN_RUN": str(self.run),
            "WORKSPACE": str(self.workspace),
            "PODKILN_CGROUP_ROOT": str(self.root / "cgroup"),
            **self.environ,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", DRIVER.format(**words)],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; returns exit code, stdout, stderr."""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err

    @property
    def log(self) -> str:
        """The log on the volume."""
        return (self.workspace / "logs" / "comfyui.log").read_text()

    @property
    def boot(self) -> dict[str, Any]:
        """boot.json."""
        return dict(json.loads((self.run / "boot.json").read_text()))

    def until(self, text: str) -> None:
        """Wait until the log on the volume holds a text."""
        end = time.monotonic() + 20
        while text not in (self.log if (self.workspace / "logs" / "comfyui.log").exists() else ""):
            assert time.monotonic() < end, self.log
            time.sleep(0.02)


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    pod = Pod(tmp_path)
    yield pod
    with pod.process:
        pod.process.kill()


def test_a_dying_comfyui_is_started_three_times_again_and_then_the_pod_stops_with_the_reason(
    pod: Pod,
) -> None:
    code, out, err = pod.start("""
        print("hello")
        raise RuntimeError("the card is gone")
    """).end()
    assert code == 1
    assert out.count("hello\n") == 4
    again = [line for line in err.splitlines() if "It is started again in" in line]
    assert [line.rpartition("(")[2] for line in again] == ["1 of 3).", "2 of 3).", "3 of 3)."]
    assert err.splitlines()[-1] == (
        "podkiln: ComfyUI has ended 4 times, so the pod stops: exit code 1: RuntimeError: the card is gone."
    )
    restarts = pod.boot["restarts"]
    assert [each["why"] for each in restarts] == ["exit code 1: RuntimeError: the card is gone"] * 4
    assert ["spawned" in each for each in restarts] == [True, True, True, False]
    assert restarts[0]["spawned"] - restarts[0]["ended"] > 0.04


def test_a_run_that_lasted_gives_all_restarts_back(pod: Pod) -> None:
    """Every third life is a long one, and no count ever reaches four."""
    count = pod.root / "count"
    pod.start(
        f"""
        import pathlib, time
        path = pathlib.Path({str(count)!r})
        lives = len(path.read_text()) if path.exists() else 0
        path.write_text("x" * (lives + 1))
        if lives >= 7: time.sleep(60)
        time.sleep(0.4 if lives % 3 == 2 else 0)
        raise SystemExit(1)
        """,
        steady=0.3,
    )
    end = time.monotonic() + 20
    while not count.exists() or len(count.read_text()) < 8:
        assert pod.process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    pod.process.terminate()
    assert pod.end()[0] == 0


@pytest.mark.parametrize(
    ("program", "code", "why"),
    [
        (
            "import argparse; argparse.ArgumentParser(prog='main.py').parse_args(['--nonsense'])",
            2,
            "exit code 2: main.py: error: unrecognized arguments: --nonsense",
        ),
        ("print('it was told to do something else')", 0, "exit code 0"),
    ],
)
def test_what_would_never_serve_is_not_tried_again(pod: Pod, program: str, code: int, why: str) -> None:
    assert pod.start(program).end()[0::2] == (
        code,
        f"podkiln: ComfyUI has ended before it served, and would again, so the pod stops: {why}.\n",
    )


def test_one_that_has_served_is_started_again_even_after_a_clean_end(pod: Pod) -> None:
    pod.start(SERVE).until("podkiln: ready in")
    started = pod.boot["spawned"]
    os.kill(int(pod.log.partition("serving ")[2].split()[0]), signal.SIGINT)
    pod.until("podkiln: ready again in")
    pod.process.terminate()
    assert pod.end()[0] == 0
    (restart,) = pod.boot["restarts"]
    assert restart["why"] == "exit code 0"
    assert started < restart["ended"] < restart["spawned"] < restart["ready"]


def test_a_port_that_another_program_takes_ends_the_pod_at_once_with_the_reason(pod: Pod) -> None:
    """The other one is called main.py as well, and answers as ComfyUI does."""
    pod.start(SERVE, pause=3).until("podkiln: ready in")
    other = pod.root / "other"
    other.mkdir()
    (other / "main.py").write_text(SERVE)
    os.kill(int(pod.log.partition("serving ")[2].split()[0]), signal.SIGKILL)
    pod.until("It is started again in 3 s")
    command = [sys.executable, "-u", str(other / "main.py"), str(pod.port)]
    stranger = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert stranger.stdout
    assert stranger.stdout.readline()
    try:
        code, _, err = pod.end()
        assert code == 69
        last = err.splitlines()[-1]
        assert last.startswith(f"podkiln: port {pod.port} is taken by python")
        assert last.endswith(
            "and ComfyUI is to listen there, so the pod stops: end that, or set COMFYUI_PORT."
        )
        assert "ready again" not in err
    finally:
        stranger.kill()
        stranger.communicate()


def test_comfyui_is_killed_with_its_supervisor(pod: Pod) -> None:
    pod.start(SERVE).until("podkiln: ready in")
    comfyui = int(pod.log.partition("serving ")[2].split()[0])
    assert child_processes.group(str(pod.run), "comfyui") == comfyui
    pod.process.kill()
    end = time.monotonic() + 5
    while child_processes.group(str(pod.run), "comfyui"):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_its_own_restart_is_nobodys_death(pod: Pod) -> None:
    """ComfyUI-Manager restarts by os.execv."""
    pod.start("""
        import os, sys, time
        if "again" in sys.argv:
            print("the second")
            time.sleep(60)
        os.execv(sys.executable, [sys.executable, "-u", __file__, "again"])
    """).until("the second")
    pod.process.terminate()
    code, _, err = pod.end()
    assert (code, err) == (0, "podkiln: stopping\n")


def test_what_it_prints_goes_to_stdout_unchanged_and_at_once(pod: Pod) -> None:
    """Progress bars too: they end in a carriage return. stderr and stdout keep their order."""
    pod.start(r"""
        import os, time
        os.write(2, b"\r 50%|##  | 1/2")
        os.write(1, b"\xff\x00")
        time.sleep(60)
    """)
    assert pod.process.stdout
    end, seen = time.monotonic() + 20, b""
    while len(seen) < 17 and time.monotonic() < end:
        seen += os.read(pod.process.stdout.fileno(), 100)
    assert seen == b"\r 50%|##  | 1/2\xff\x00"
    time.sleep(0.1)
    assert (pod.workspace / "logs" / "comfyui.log").read_bytes().endswith(seen)


def test_what_others_say_goes_to_stderr_and_into_the_log(pod: Pod) -> None:
    pod.start("import time; time.sleep(60)")
    assert pod.process.stdin
    pod.process.stdin.write("fetch: something arrived\n")
    pod.process.stdin.flush()
    pod.until("fetch: something arrived\n")
    pod.process.terminate()
    assert "fetch: something arrived\n" in pod.end()[2]


def test_the_log_begins_with_what_was_decided(pod: Pod) -> None:
    decision = {"warnings": ["it is tight"], "reasons": ["because"], "args": ["--cpu", "a b"], "models": []}
    (pod.run / "decision.json").write_text(json.dumps(decision))
    pod.start(SERVE).until("ready in")
    assert pod.log.splitlines()[1:4] == [
        "podkiln: warning: it is tight",
        "podkiln: because",
        "podkiln: ComfyUI's arguments: --cpu 'a b'",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_clean_stop(pod: Pod, number: signal.Signals) -> None:
    pod.start(SERVE).until("podkiln: ready in")
    pod.process.send_signal(number)
    code, out, err = pod.end()
    assert code == 0
    assert out.endswith("\nStopped server\n")
    assert err.endswith("podkiln: stopping\n")


@pytest.mark.parametrize("delay", [0.1, 0.15, 0.2, 0.25, 0.3, 0.4])
def test_no_signal_is_lost_while_much_is_loaded(pod: Pod, delay: float) -> None:
    """Python may note a signal and then wait for ComfyUI's end before it looks at it."""
    pod.start("import time; print('up'); time.sleep(60)")
    assert pod.process.stdout
    assert pod.process.stdout.readline() == "up\n"
    time.sleep(delay)
    begun = time.monotonic()
    pod.process.send_signal(signal.SIGINT)
    pod.process.send_signal(signal.SIGTERM)
    assert pod.end()[0] == 0
    assert time.monotonic() - begun < 4


def test_one_that_does_not_stop_is_killed_in_time(pod: Pod) -> None:
    pod.start(
        """
        import signal, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("deaf")
        time.sleep(60)
        """,
        stop=0.5,
    ).until("deaf")
    begun = time.monotonic()
    pod.process.terminate()
    assert pod.end()[0] == 0
    assert 0.5 <= time.monotonic() - begun < 3


def test_a_signal_between_two_lives_starts_no_other(pod: Pod) -> None:
    pod.start("raise SystemExit(1)").until("1 of 3")
    pod.process.terminate()
    code, _, err = pod.end()
    assert code in (0, 1)  # 1 where all four lives were over before the signal came
    assert code == 1 or "so the pod stops" not in err


def test_it_asks_its_parent_to_stop_and_has_the_last_word(pod: Pod, tmp_path: Path) -> None:
    """The parent here is a shell that does what start.sh does."""
    script = """
        trap 'echo "service: my last words" >&9; exec 9>&-; wait $supervisor; exit $?' TERM
        exec 9> >(exec "$@")
        supervisor=$!
        wait $supervisor
    """
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit(3)")
    driver = "import os\n" + DRIVER.format(
        scripts=str(SCRIPTS),
        program=str(program),
        steady=600,
        stop=5,
        parent="PARENT",
        pause=0.05,
        prelude="",
    ).replace('"PARENT"', "str(os.getppid())")
    environ = {**os.environ, "PODKILN_RUN": str(pod.run), "WORKSPACE": str(pod.workspace)}
    pod.process = subprocess.Popen(
        ["bash", "-c", textwrap.dedent(script), "bash", sys.executable, "-I", "-S", "-c", driver],
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    code, _, err = pod.end()
    assert code == 3
    assert err.splitlines()[-2:] == [
        "service: my last words",
        "podkiln: ComfyUI has ended 4 times, so the pod stops: exit code 3.",
    ]


def test_what_is_left_of_a_dead_comfyui_is_cleared_away(pod: Pod) -> None:
    """A worker of a custom node that lives on would hold the card's memory, or the port."""
    left = pod.root / "left"
    code, _, _ = pod.start(f"""
        import os, pathlib, time
        if os.fork() == 0:
            with open({str(left)!r}, "a") as file: print(os.getpid(), file=file, flush=True)
            time.sleep(60)
        while not pathlib.Path({str(left)!r}).exists(): time.sleep(0.01)
        os._exit(1)
    """).end()
    assert code == 1
    for number in left.read_text().split():
        state = Path(f"/proc/{number}/status")
        assert not state.exists() or "Z (zombie)" in state.read_text()


def test_what_cannot_be_started_is_one_sentence(pod: Pod) -> None:
    environ = {"PODKILN_RUN": str(pod.run), "WORKSPACE": str(pod.workspace)}
    argv = [sys.executable, "-I", "-S", str(SCRIPTS), "run", "1", "8", "/none/python", "main.py"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stderr) == (
        70,
        "podkiln: /none/python cannot be started (No such file or directory).\n",
    )
    pod.process = subprocess.Popen(["true"], text=True)
