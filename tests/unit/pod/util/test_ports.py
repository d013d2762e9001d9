"""Ports that somebody has, and who it is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from registries import free_port

from pod.util import ports

if TYPE_CHECKING:
    from collections.abc import Iterator

NONE: dict[str, Any] = {"ssh": None, "jupyter": None, "login": None}


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::1"])
def busy(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port on which this process listens."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((request.param, 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_is_taken_on_whichever_address(busy: int) -> None:
    assert ports.taken(busy)
    assert not ports.taken(free_port())


def test_comfyuis_port_is_fatal_and_who_has_it_is_said(busy: int) -> None:
    (finding,) = ports.examine(["--port", str(busy)], NONE, busy)
    assert (finding.level, finding.check) == ("fatal", "port")
    assert f"port {busy} is taken by " in finding.message
    assert f"(process {os.getpid()}), and ComfyUI is to listen there: set COMFYUI_PORT" in finding.message


def test_other_services_cost_themselves_alone(busy: int) -> None:
    access = {**NONE, "ssh": {"port": busy, "keys": 1}}
    (finding,) = ports.examine(["--port", str(free_port())], access, free_port())
    assert finding.level == "warning"
    assert finding.message.endswith("and sshd is to listen there: set SSH_PORT")


def test_the_login_listens_where_people_come_to(busy: int) -> None:
    access = {**NONE, "login": {"user": "me"}}
    (finding,) = ports.examine(["--port", str(free_port())], access, busy)
    assert "the login before ComfyUI" in finding.message
    (finding,) = ports.examine(["--port", str(free_port())], NONE, busy)
    assert "and ComfyUI is to listen there" in finding.message


def test_free_ports_are_no_finding() -> None:
    assert ports.examine(["--port", str(free_port())], NONE, free_port()) == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (("0.0.0.0", "::"), ["0.0.0.0", "::"]),
        (("",), ["0.0.0.0"]),
        (("localhost",), ["127.0.0.1"]),
        (("127.0.0.1", " ::1"), ["127.0.0.1", "::1"]),
        (("203.0.113.9",), []),
        (("no.such.name.invalid", "x" * 300, "fe80::1%lo"), []),
    ],
)
def test_addresses_to_listen_on(asked: tuple[str, ...], found: list[str]) -> None:
    assert [each for each in ports.usable(asked) if asked != ("localhost",) or "." in each] == found


def test_an_address_that_is_not_this_pods_is_fatal() -> None:
    (finding,) = ports.examine(["--port", str(free_port())], NONE, free_port(), ("203.0.113.9",))
    assert (finding.level, finding.check) == ("fatal", "address")
    assert finding.message.startswith("this pod has no address '203.0.113.9'")


SERVE = """
import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
s.listen()
print(s.getsockname()[1], flush=True)
input()
"""


def test_the_pods_own_comfyui_is_no_stranger_but_any_other_main_py_is() -> None:
    command = [sys.executable, "-c", SERVE, "main.py"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, process_group=0) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        assert ports.examine(["--port", str(port)], NONE, port, comfyui=process.pid) == []
        for own in (None, os.getpgid(0)):
            (finding,) = ports.examine(["--port", str(port)], NONE, port, comfyui=own)
            assert (finding.level, f"(process {process.pid})" in finding.message) == ("fatal", True)
        process.kill()
