"""`/ping`: where it is asked for, and what it answers."""

from __future__ import annotations

import contextlib
import errno
import http.client
import re
import time

import pytest
from registries import free_port

from pod.services import ping_config
from pod.services.config import LOCAL_PORT
from pod.supervisor import ping_server
from pod.util.env import SettingError

LOCAL = ("127.0.0.1", LOCAL_PORT)


OTHERS = {"COMFYUI_PORT behind the door": 18188, "SSH_PORT": 22}


@pytest.mark.parametrize(
    ("environ", "addresses"),
    [
        ({}, (LOCAL,)),
        ({"PORT": "80"}, (LOCAL,)),  # many programs have a PORT; only a load balancer's worker an endpoint
        ({"RUNPOD_ENDPOINT_ID": "e"}, (LOCAL,)),
        ({"PORT_HEALTH": "9000"}, (LOCAL, ("0.0.0.0", 9000), ("::", 9000))),
        ({"PORT_HEALTH": "8190"}, (("0.0.0.0", 8190), ("::", 8190))),  # one listener serves both
        ({"PORT": "9000", "RUNPOD_ENDPOINT_ID": "e"}, (LOCAL, ("0.0.0.0", 9000), ("::", 9000))),
    ],
)
def test_it_is_answered_where_it_is_asked_for(
    environ: dict[str, str], addresses: tuple[tuple[str, int], ...]
) -> None:
    wish = ping_config.read(environ, 8188, OTHERS)
    assert wish.addresses == addresses
    assert not wish.at_the_door


@pytest.mark.parametrize("environ", [{"PORT_HEALTH": "8188"}, {"PORT": "8188", "RUNPOD_ENDPOINT_ID": "e"}])
def test_at_comfyuis_port_the_door_answers(environ: dict[str, str]) -> None:
    assert ping_config.read(environ, 8188, OTHERS) == ping_config.PingConfig(
        (LOCAL,), "/ping", at_the_door=True
    )


@pytest.mark.parametrize("value", ["soon", "0", "70000"])
def test_a_port_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(SettingError, match="PORT_HEALTH="):
        ping_config.read({"PORT_HEALTH": value}, 8188)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"PORT_HEALTH": "18188"}, "PORT_HEALTH and COMFYUI_PORT behind the door are both 18188"),
        ({"PORT": "22", "RUNPOD_ENDPOINT_ID": "e"}, "PORT and SSH_PORT are both 22"),
        (
            {"HEALTH_CHECK_PATH": "/x { return 200; }"},
            "HEALTH_CHECK_PATH='/x { return 200; }' is not a plain path",
        ),
        ({"HEALTH_CHECK_PATH": "healthz"}, "HEALTH_CHECK_PATH='healthz' is not a plain path"),
        *(
            ({"HEALTH_CHECK_PATH": path}, f"HEALTH_CHECK_PATH={path!r} is never requested as it is written")
            for path in ("//evil", "/a/../b", "/a/./b", "/a//b", "/..", "/.")
        ),
        *(
            (
                {"HEALTH_CHECK_PATH": path, "PORT_HEALTH": "8188"},
                f"HEALTH_CHECK_PATH={path!r} is an address of ComfyUI's own on port 8188",
            )
            for path in ("/system_stats", "/ws", "/api/x", "/history/1")
        ),
    ],
)
def test_what_leads_nowhere_is_refused(environ: dict[str, str], says: str) -> None:
    with pytest.raises(SettingError, match=re.escape(says)) as raised:
        ping_config.read(environ, 8188, OTHERS)
    assert raised.value.exit_code == 78


def test_an_address_of_comfyuis_may_be_the_path_on_another_port() -> None:
    asked = {"HEALTH_CHECK_PATH": "/system_stats", "PORT_HEALTH": "9000"}
    assert ping_config.read(asked, 8188).path == "/system_stats"
    assert ping_config.read({"HEALTH_CHECK_PATH": "/viewer/a", "PORT_HEALTH": "8188"}, 8188).at_the_door


def test_where_a_server_takes_jobs_that_one_answers_at_its_own_port_and_another() -> None:
    environ = {"PODKILN_SERVE": "http", "RUNPOD_ENDPOINT_ID": "ep", "PORT": "80"}
    inside = (("127.0.0.1", 8190),)
    assert ping_config.read(environ, 8188).addresses == inside
    assert ping_config.read({**environ, "PORT_HEALTH": "80"}, 8188).addresses == inside
    assert ping_config.read({"PODKILN_SERVE": "http", "PORT_HEALTH": "8000"}, 8188).addresses == inside
    asked = ping_config.read({**environ, "PORT_HEALTH": "8080"}, 8188)
    assert (asked.addresses, asked.of_worker) == (inside, 8080), "it knows of a warm-up, and of its end"
    with pytest.raises(SettingError, match="PORT_HEALTH and SSH_PORT are both 22"):
        ping_config.read({**environ, "PORT_HEALTH": "22"}, 8188, OTHERS)


def test_a_load_balancer_may_come_by_ipv6() -> None:
    port = free_port()
    said: list[str] = []
    wish = ping_config.PingConfig((("0.0.0.0", port), ("::", port)))
    ping_server.serve(wish, ping_server.HealthCache(lambda: None, lambda: False), said.append)
    assert said == []
    for host in ("127.0.0.1", "::1"):
        with contextlib.closing(http.client.HTTPConnection(host, port, timeout=5)) as connection:
            connection.request("GET", "/ping")
            assert connection.getresponse().status == 200


def test_a_machine_without_ipv6_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(ping_server, "_NO_IPV6", (errno.EADDRNOTAVAIL,))
    wish = ping_config.PingConfig((("2001:db8::1", free_port()),))
    ping_server.serve(wish, ping_server.HealthCache(lambda: None, lambda: False), said.append)
    assert said == []


@pytest.mark.parametrize(
    ("problem", "served", "status"),
    [(None, False, 200), (None, True, 200), ("no answer", False, 204), ("no answer", True, 503)],
)
def test_the_status_agrees_with_the_health_check(problem: str | None, served: bool, status: int) -> None:
    assert ping_server.HealthCache(lambda: problem, lambda: served).status() == status


def test_comfyui_is_asked_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    pulse = ping_server.HealthCache(lambda: asked.append(time.monotonic()), lambda: False)
    for _ in range(5):
        pulse.status()
    assert len(asked) == 1
    monkeypatch.setattr(ping_server, "_FRESH", 0.0)
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
    wish = ping_config.PingConfig((("127.0.0.1", port),), "/healthz")
    ping_server.serve(wish, ping_server.HealthCache(lambda: "starting", lambda: False), pytest.fail)
    assert ask(port, "/ping") == (204, b"")
    assert ask(port, "/healthz?x=1") == (204, b"")
    assert ask(port, "/ping", "HEAD") == (204, b"")
    assert ask(port, "/system_stats") == (404, b"")
    assert ask(port, "/ping", "POST")[0] == 501


def test_a_port_that_is_taken_is_one_sentence() -> None:
    said: list[str] = []
    wish = ping_config.PingConfig((("127.0.0.1", port := free_port()),) * 2)
    ping_server.serve(wish, ping_server.HealthCache(lambda: None, lambda: False), said.append)
    assert said == [f"/ping cannot be answered on port {port}: Address already in use."]
