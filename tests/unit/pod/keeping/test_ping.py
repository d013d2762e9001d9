"""`/ping`: where it is asked for, and what it answers."""

from __future__ import annotations

import http.client
import time

import pytest
from registries import free_port

from pod.keeping import ping
from pod.settings import SettingError

LOCAL = ("127.0.0.1", ping.LOCAL_PORT)


@pytest.mark.parametrize(
    ("environ", "login", "addresses"),
    [
        ({}, False, ()),
        ({}, True, (LOCAL,)),
        ({"PORT": "80"}, False, ()),  # many programs have a PORT; only a load balancer's worker an endpoint
        ({"RUNPOD_ENDPOINT_ID": "e"}, False, ()),
        ({"PORT_HEALTH": "9000"}, False, (("0.0.0.0", 9000),)),
        ({"PORT_HEALTH": "9000"}, True, (LOCAL, ("0.0.0.0", 9000))),
        ({"PORT_HEALTH": "8190"}, True, (("0.0.0.0", 8190),)),  # one listener serves both
        ({"PORT": "9000", "RUNPOD_ENDPOINT_ID": "e"}, False, (("0.0.0.0", 9000),)),
        ({"PORT": "8188", "RUNPOD_ENDPOINT_ID": "e"}, True, (LOCAL,)),
    ],
)
def test_it_is_answered_where_it_is_asked_for(
    environ: dict[str, str], login: bool, addresses: tuple[tuple[str, int], ...]
) -> None:
    wish = ping.read(environ, 8188, login=login)
    assert wish.addresses == addresses
    assert wish.warnings == ()


@pytest.mark.parametrize(
    ("environ", "name"),
    [({"PORT_HEALTH": "8188"}, "PORT_HEALTH"), ({"PORT": "8188", "RUNPOD_ENDPOINT_ID": "e"}, "PORT")],
)
def test_comfyuis_own_port_is_a_sentence_that_says_what_to_do(environ: dict[str, str], name: str) -> None:
    wish = ping.read(environ, 8188, login=False)
    assert wish.addresses == ()
    (warning,) = wish.warnings
    assert warning.startswith(f"{name}=8188 is ComfyUI's own port, which knows no /ping: set PORT_HEALTH to ")


@pytest.mark.parametrize("value", ["soon", "0", "70000"])
def test_a_port_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(SettingError, match="PORT_HEALTH="):
        ping.read({"PORT_HEALTH": value}, 8188, login=False)


@pytest.mark.parametrize(
    ("problem", "served", "status"),
    [(None, False, 200), (None, True, 200), ("no answer", False, 204), ("no answer", True, 503)],
)
def test_the_status_agrees_with_the_health_check(problem: str | None, served: bool, status: int) -> None:
    assert ping.Pulse(lambda: problem, lambda: served).status() == status


def test_comfyui_is_asked_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    pulse = ping.Pulse(lambda: asked.append(time.monotonic()), lambda: False)
    for _ in range(5):
        pulse.status()
    assert len(asked) == 1
    monkeypatch.setattr(ping, "_FRESH", 0.0)
    pulse.status()
    assert len(asked) == 2


def ask(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_it_says_the_status_and_nothing_else() -> None:
    port = free_port()
    wish = ping.Wish((("127.0.0.1", port),), "/healthz")
    ping.serve(wish, ping.Pulse(lambda: "starting", lambda: False), pytest.fail)
    assert ask(port, "/ping") == (204, b"")
    assert ask(port, "/healthz?x=1") == (204, b"")
    assert ask(port, "/ping", "HEAD") == (204, b"")
    assert ask(port, "/system_stats") == (404, b"")
    assert ask(port, "/ping", "POST")[0] == 501


def test_a_port_that_is_taken_is_one_sentence() -> None:
    said: list[str] = []
    wish = ping.Wish((("127.0.0.1", port := free_port()),) * 2)
    ping.serve(wish, ping.Pulse(lambda: None, lambda: False), said.append)
    assert said == [f"/ping cannot be answered on port {port}: Address already in use."]
