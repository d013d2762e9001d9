"""Services are looked after: started again when they end, given up at last, and ended when the pod is."""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from pod.services import service
from pod.services.service import Service, ServiceSupervisor
from pod.util import restart
from pod.util.dataclass import replace


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def delays(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    monkeypatch.setattr(restart, "SERVICE", restart.RestartPolicy(seconds, stable=60.0))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    delays(monkeypatch, 0.01, 0.02)


def python(code: str, port: int) -> Service:
    argv = (sys.executable, "-I", "-S", "-c", code)
    return Service("door", argv, {"A": "b"}, port, "DOOR_PORT", "The door is open.", nice=3)


def test_what_ends_is_started_again_and_given_up_at_last(
    port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import os; print(dict(os.environ), os.nice(0)); raise SystemExit(3)"
    ServiceSupervisor(python(code, port), tmp_path).keep()
    said = capfd.readouterr()
    lines = said.err.splitlines()
    assert said.out == ""
    assert sum("'A': 'b'" in line and "HOME" not in line for line in lines) == 3
    assert [line for line in lines if line.startswith("podkiln: ")] == [
        "podkiln: The door is open.",
        "podkiln: door has ended (exit code 3); it is started again in 0.01 s.",
        "podkiln: door has ended (exit code 3); it is started again in 0.02 s.",
        "podkiln: door has ended 3 times, so it stays down; its own lines above say why.",
    ]


def test_what_is_needed_is_never_given_up(
    port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    supervisor = ServiceSupervisor(replace(python("pass", port), needed=True), tmp_path)
    thread = threading.Thread(target=supervisor.keep)
    thread.start()
    said = ""
    end = time.monotonic() + 10
    while said.count("it is started again in 0.02 s") < 4:
        assert time.monotonic() < end
        said += capfd.readouterr().err
        time.sleep(0.02)
    supervisor.stop()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (b"a\x1b[2Jb\r\n", "a\\x1b[2Jb\\r"),
        (b"\xff\xc3\xa9\tx\n", "\\xff\u00e9\\tx"),
        ("\u202e\u2028\x9b\n".encode(), "\\u202e\\u2028\\x9b"),
        (b"no end", "no end"),
        (b"x" * 5000 + b"\n", "x" * 4000),
    ],
)
def test_what_it_prints_is_text_and_nothing_else(
    printed: bytes,
    said: str,
    port: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names of strangers are in it."""
    delays(monkeypatch)
    ServiceSupervisor(python(f"import os; os.write(2, {printed!r})", port), tmp_path).keep()
    lines = capfd.readouterr().err.split("\n")
    assert lines[0] == "podkiln: The door is open."
    assert lines[1] == said


def test_what_it_leaves_behind_is_ended(port: int, tmp_path: Path) -> None:
    """As nginx's workers, which would keep the port from the next master."""
    code = f"""
import os, time
if os.fork() == 0:
    open({str(tmp_path / "child")!r}, "a").write(f"{{os.getpid()}}\\n")
    time.sleep(60)
time.sleep(0.2)
"""
    ServiceSupervisor(python(code, port), tmp_path).keep()
    children = [int(line) for line in (tmp_path / "child").read_text().splitlines()]
    assert len(children) == 3
    end = time.monotonic() + 5
    while any(Path(f"/proc/{child}/fd/0").exists() for child in children):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_program_that_is_not_there(port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ServiceSupervisor(Service("door", ("/no/door",), {}, port, "DOOR_PORT", "Open."), tmp_path).keep()
    assert "podkiln: /no/door cannot be started: No such file or directory." in capfd.readouterr().err


def test_a_port_that_is_taken_is_said_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = int(other.getsockname()[1])
        ServiceSupervisor(python("print('never')", taken), tmp_path).keep()
    assert capsys.readouterr().err == (
        f"podkiln: port {taken} is taken already, so door is not started; DOOR_PORT moves it.\n"
    )


@pytest.mark.parametrize(
    "code", ["import time; time.sleep(60)", "import signal, time; signal.signal(15, 1); time.sleep(60)"]
)
def test_the_end_of_the_pod_ends_it(
    code: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is deaf to SIGTERM."""
    monkeypatch.setattr(service, "_STOP_SECONDS", 0.3)
    supervisor = ServiceSupervisor(python(code, port), tmp_path)
    thread = threading.Thread(target=supervisor.keep)
    thread.start()
    time.sleep(0.2)
    supervisor.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_the_end_of_the_pod_ends_a_pause(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delays(monkeypatch, 60.0)
    supervisor = ServiceSupervisor(python("pass", port), tmp_path)
    thread = threading.Thread(target=supervisor.keep)
    thread.start()
    time.sleep(0.3)
    supervisor.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_what_is_too_long_for_a_line_is_cut_and_begins_no_other(
    port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Or a stranger could write whole lines of the pod's log, by what the service quotes."""
    code = "print('a' * 4000 + 'podkiln: ready in 0.0 s' + 'b' * 9000); print('next')"
    ServiceSupervisor(python(code, port), tmp_path).keep()
    lines = {
        line[:10] for line in capfd.readouterr().err.splitlines() if not line.startswith("podkiln: door")
    }
    assert lines == {"podkiln: T", "a" * 10, "next"}


def test_a_private_file_is_private_from_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.touch(0o666)
    service.write_private(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]
