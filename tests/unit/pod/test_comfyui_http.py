"""The health check asks ComfyUI where it really listens, and says what is wrong in one sentence."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from registries import free_port

from pod import comfyui_http
from pod.commands import health
from pod.util import child_processes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PODKILN_RUN", str(tmp_path))
    monkeypatch.delenv("COMFYUI_PORT", raising=False)
    return tmp_path


def pass_to_comfyui(run: Path, *arguments: str) -> None:
    (run / "comfyui.args").write_text("".join(f"{each}\0" for each in arguments))


@pytest.mark.parametrize(
    ("arguments", "variable", "host", "port"),
    [
        ((), None, "127.0.0.1", 8188),
        ((), "9000", "127.0.0.1", 9000),
        (("--port=9001",), "9000", "127.0.0.1", 9001),
        (("--port", "9002"), "9000", "127.0.0.1", 9002),
        (("--port=1", "--port", "9003"), None, "127.0.0.1", 9003),
        (("--port",), None, "127.0.0.1", 8188),
        (("--listen=0.0.0.0",), None, "127.0.0.1", 8188),
        (("--listen", "--port=9004"), None, "127.0.0.1", 9004),
        (("--listen=0.0.0.0,::",), None, "127.0.0.1", 8188),
        (("--listen=::",), None, "::1", 8188),
        (("--listen", "127.0.0.1,::1"), None, "127.0.0.1", 8188),
        (("--listen", "::1,127.0.0.1"), None, "::1", 8188),
        (("--listen=0.0.0.0", "--listen", "10.0.0.5"), None, "10.0.0.5", 8188),
    ],
)
def test_the_last_word_of_a_user_wins(
    arguments: tuple[str, ...],
    variable: str | None,
    host: str,
    port: int,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if variable:
        monkeypatch.setenv("COMFYUI_PORT", variable)
    if arguments:
        pass_to_comfyui(run, *arguments)
    given = comfyui_http.arguments()
    assert (comfyui_http.host(given), comfyui_http.port(given)) == (host, port)


def test_with_tls_it_is_asked_with_tls() -> None:
    given = ["--tls-keyfile=k.pem", "--tls-certfile=c.pem"]
    assert type(comfyui_http.connect(given, 1)).__name__ == "HTTPSConnection"
    assert type(comfyui_http.connect([], 1)).__name__ == "HTTPConnection"


class _Answer(http.server.BaseHTTPRequestHandler):
    status = 200
    pause = 0.0

    def do_GET(self) -> None:
        time.sleep(self.pause)
        self.send_response(self.status if self.path == "/system_stats" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def comfyui(run: Path) -> Iterator[type[_Answer]]:
    handler = type("Handler", (_Answer,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        pass_to_comfyui(run, f"--port={server.server_port}")
        yield handler
        server.shutdown()


def test_a_serving_comfyui_is_healthy(comfyui: type[_Answer], capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main([]) == 0
    assert capsys.readouterr() == ("", "")


def test_an_error_is_said(comfyui: type[_Answer], capsys: pytest.CaptureFixture[str]) -> None:
    comfyui.status = 500
    assert health.main([]) == 1
    assert capsys.readouterr().err == "ComfyUI answers 500 to /system_stats.\n"


def test_a_hang_is_given_up(comfyui: type[_Answer]) -> None:
    comfyui.pause = 0.5
    assert "does not answer on port" in str(comfyui_http.problem(timeout=0.1))


def test_nobody_there_is_said(run: Path) -> None:
    pass_to_comfyui(run, "--port=9")
    assert "ComfyUI does not answer on port 9: " in str(comfyui_http.problem())


@pytest.mark.parametrize("host", ["a..b", "x" * 100, "a\nb", "."])
def test_a_host_that_is_none_is_said(run: Path, host: str) -> None:
    pass_to_comfyui(run, "--listen", host, "--port", "1")
    said = comfyui_http.problem(1)
    assert said
    assert said.startswith("ComfyUI does not answer on port 1: ")
    assert said.isprintable()


@pytest.mark.parametrize(
    "answer",
    [b"", b"\xff\xfe\n\n", b"HTTP/1.1 \xb200\x1b OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200],
)
def test_an_answer_that_is_no_http_is_one_line(run: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        pass_to_comfyui(run, "--port", str(server.getsockname()[1]))

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        said = comfyui_http.problem(2)
        thread.join()
    assert said
    assert said.isprintable()


def decide(run: Path, port: int, *addresses: str) -> None:
    (run / "decision.json").write_text(json.dumps({"port": port, "listen": addresses}))


def test_a_door_that_is_not_there_is_said(
    comfyui: type[_Answer], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ComfyUI serves, and nobody can reach it."""
    port = free_port()
    decide(run, port, "0.0.0.0", "::")
    assert health.main([]) == 1
    assert f"the door before ComfyUI does not answer on port {port}: " in capsys.readouterr().err


@pytest.mark.parametrize("address", ["0.0.0.0", "", "127.0.0.1", "127.0.0.9,127.0.0.1"])
def test_a_door_that_answers_anything_is_there(comfyui: type[_Answer], run: Path, address: str) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as door:
        threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        decide(run, door.server_port, *address.split(","))
        assert health.main([]) == 0
        door.shutdown()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"port": null, "listen": []}', '{"port": 1, "listen": 7}'])
def test_without_a_decision_no_door_is_asked(comfyui: type[_Answer], run: Path, text: str) -> None:
    (run / "decision.json").write_text(text)
    assert health.main([]) == 0


def test_docker_waits_longer_than_we_do() -> None:
    assert comfyui_http.TIMEOUT < 5


def test_a_worker_that_does_not_run_is_said_where_there_is_to_be_one(
    comfyui: type[_Answer], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "boot.json").write_text('{"schema": 1, "restarts": []}')
    assert health.main([]) == 0
    (run / "boot.json").write_text('{"schema": 1, "worker": {"spawned": 1.0, "restarts": []}}')
    assert health.main([]) == 1
    assert capsys.readouterr().err == "The worker, which takes jobs for ComfyUI, does not run.\n"
    with subprocess.Popen(["/bin/sleep", "60"], process_group=0) as process:
        child_processes.note(str(run), "worker", process.pid)
        assert health.main([]) == 0
        process.kill()
