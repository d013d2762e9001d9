"""ComfyUI is asked to interrupt what it is working on, as its own page would ask."""

from __future__ import annotations

import http.server
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from pod.supervisor import interrupt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _ComfyUI(http.server.BaseHTTPRequestHandler):
    """Works on prompts; after /interrupt it looks `looks` times before it stops."""

    running: list[Any]
    pending: list[Any]
    asked: list[tuple[str, Any]]
    looks = 2
    status = 200

    def do_GET(self) -> None:
        kind = type(self)
        if ("/interrupt", {}) in kind.asked:
            kind.looks -= 1
            if kind.looks < 0:
                kind.running = []
        self._answer({"queue_running": kind.running, "queue_pending": kind.pending})

    def do_POST(self) -> None:
        kind = type(self)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind.asked.append((self.path, body))
        if self.path == "/queue":
            kind.pending = []
        self._answer(None)

    def _answer(self, value: Any) -> None:
        self.send_response(self.status)
        self.end_headers()
        if value is not None:
            self.wfile.write(json.dumps(value).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_ComfyUI]]:
    kind = type("ComfyUI", (_ComfyUI,), {"running": [["one"]], "pending": [["two"]], "asked": []})
    monkeypatch.setenv("PODKILN_RUN", str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        (tmp_path / "comfyui.args").write_text(f"--port\0{server.server_port}\0")
        yield kind
        server.shutdown()


def test_the_queue_is_emptied_before_the_prompt_is_interrupted(comfyui: type[_ComfyUI]) -> None:
    """Else the next prompt would begin."""
    assert interrupt.interrupt(5) == 2
    assert comfyui.asked == [("/queue", {"clear": True}), ("/interrupt", {})]
    assert comfyui.running == []


def test_an_idle_comfyui_is_left_alone(comfyui: type[_ComfyUI]) -> None:
    comfyui.running, comfyui.pending = [], []
    assert interrupt.interrupt(5) == 0
    assert comfyui.asked == []


def test_a_node_that_cannot_be_interrupted_is_not_waited_for_for_ever(comfyui: type[_ComfyUI]) -> None:
    comfyui.looks = 10**6
    begun = time.monotonic()
    assert interrupt.interrupt(0.2) == 2
    assert 0.2 <= time.monotonic() - begun < 2


@pytest.mark.parametrize("status", [401, 500])
def test_one_that_refuses_is_ended_without(comfyui: type[_ComfyUI], status: int) -> None:
    comfyui.status = status
    assert interrupt.interrupt(5) == 0


def test_where_nobody_listens_there_is_nothing_to_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODKILN_RUN", str(tmp_path))
    (tmp_path / "comfyui.args").write_text("--port\x009\0")
    assert interrupt.interrupt(5) == 0
