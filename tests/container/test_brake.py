"""Strangers at the door cost nobody else anything: guessers, clients that never finish, odd names.

Everything is bounded: 40 guessers for some seconds, 2100 connections, on this machine's own bridge.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import resource
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from containers import PORT, Container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from images import Image

pytestmark = pytest.mark.engine
ENV = {"WEB_USER": "me", "WEB_PASSWORD": "right", "MODELS": "none"}
GUESSERS, SECONDS, HALF_OPEN = 40, 6.0, 2100


@pytest.fixture(scope="module")
def pod(lazy: Image) -> Iterator[Container]:
    with Container(lazy.name, env=ENV) as container:
        container.wait_log("podkiln: ready in")
        yield container


def ask(pod: Container, path: str, login: str = "") -> tuple[int, float]:
    """Ask by a connection of its own; returns the status and how long it took."""
    headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
    begun = time.monotonic()
    with contextlib.closing(http.client.HTTPConnection(pod.address, PORT, timeout=20)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
    return answer.status, time.monotonic() - begun


def slowest(times: list[float]) -> float:
    """Return the 95th percentile."""
    return sorted(times)[int(len(times) * 0.95)]


def measured(pod: Container) -> tuple[float, float]:
    """Ask for a while as a user and as a load balancer; returns both 95th percentiles, in seconds."""
    users, pings = [], []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        status, took = ask(pod, "/system_stats", "me:right")
        assert status == 200
        users.append(took)
        status, took = ask(pod, "/ping")
        assert status == 200
        pings.append(took)
        time.sleep(0.05)
    return slowest(users), slowest(pings)


@contextlib.contextmanager
def guessing(pod: Container, login: Callable[[int], str]) -> Iterator[list[int]]:
    """Guess passwords from many threads, as fast as the door lets them; yields what it answers."""
    over = threading.Event()
    answers: list[int] = []

    def guess(number: int) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                answers.append(ask(pod, "/", login(number))[0])
                time.sleep(0.02)  # the guessers' own work is not to be measured

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(GUESSERS)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_guessers_are_slowed_down_and_nobody_else(pod: Container) -> None:
    """All come from one address, as behind a provider's proxy."""
    begun = time.monotonic()
    with guessing(pod, lambda number: f"me:wrong{number}") as answers:
        user, ping = measured(pod)
    took = time.monotonic() - begun
    assert user < 0.3
    assert ping < 0.1
    assert set(answers) == {401, 429}
    # One a second is looked at, and a few at once in the beginning.
    assert answers.count(401) <= took + 6


def test_a_right_password_is_no_guess(pod: Container) -> None:
    assert [ask(pod, "/system_stats", "me:right")[0] for _ in range(30)] == [200] * 30


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process have enough connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HALF_OPEN + 500), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_who_never_finishes_asking_keeps_nobody_out(pod: Container) -> None:
    with contextlib.ExitStack() as stack:
        half = []
        for _ in range(HALF_OPEN):
            caller = stack.enter_context(socket.create_connection((pod.address, PORT), timeout=10))
            caller.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            half.append(caller)
        user, ping = measured(pod)
        assert user < 0.3
        assert ping < 0.1
        # They are ended after a while, whatever they still send.
        end = time.monotonic() + 15
        half[-1].settimeout(15)
        with contextlib.suppress(ConnectionResetError):
            assert half[-1].recv(1) == b""
        assert time.monotonic() < end


FORGED = "x\npodkiln, ready in 0.0 s\r\n\x1b[2J\x1b]0;owned\x07"


def test_a_strangers_name_is_one_line_of_the_log_and_only_text(pod: Container) -> None:
    time.sleep(5)  # the brake
    before = pod.logs()
    assert ask(pod, "/", f"{FORGED}:wrong")[0] == 401
    pod.wait_log("from 1")
    (line,) = set(pod.logs().splitlines()) - set(before.splitlines())
    assert line.startswith('podkiln: a login as "x\\x0Apodkiln, ready in 0.0 s\\x0D\\x0A\\x1B[2J')
    assert line.isprintable()
    assert "wrong" not in line
