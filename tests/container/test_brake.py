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
    from collections.abc import Iterator

    from images import Image

pytestmark = pytest.mark.engine
ENV = {"WEB_USER": "me", "WEB_PASSWORD": "right", "MODELS": "none"}
GUESSERS, SECONDS, HALF_OPEN = 40, 6.0, 2100
COOKIES: dict[str, str] = {}  # of who has logged in, by pod


@pytest.fixture(scope="module")
def pod(lazy: Image) -> Iterator[Container]:
    with Container(lazy.name, env=ENV) as container:
        container.wait_log("podkiln: ready in")
        COOKIES[container.name] = cookie_of(container)
        yield container


def ask(pod: Container, path: str, login: str = "", **headers: str) -> tuple[int, float]:
    """Ask by a connection of its own; returns the status and how long it took."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if login:
        headers["Authorization"] = basic(login)
    begun = time.monotonic()
    with contextlib.closing(http.client.HTTPConnection(pod.address, PORT, timeout=20)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
    return answer.status, time.monotonic() - begun


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


def cookie_of(pod: Container, **headers: str) -> str:
    """Log in as a browser does that will keep this cookie."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    end = time.monotonic() + 20
    while time.monotonic() < end:  # others may have used up what the door looks at
        with contextlib.closing(http.client.HTTPConnection(pod.address, PORT, timeout=20)) as connection:
            connection.request("GET", "/", headers={**told, "Authorization": basic("me:right")})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                return answer.headers["Set-Cookie"].partition(";")[0]
        time.sleep(0.2)
    raise AssertionError("nobody gets in")


def slowest(times: list[float]) -> float:
    """Return the 95th percentile."""
    return sorted(times)[int(len(times) * 0.95)]


def measured(pod: Container) -> tuple[float, float]:
    """Ask for a while as a user and as a load balancer; returns both 95th percentiles, in seconds."""
    users, pings = [], []
    cookie = COOKIES[pod.name]
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        status, took = ask(pod, "/system_stats", "me:right", Cookie=cookie)
        assert status == 200
        users.append(took)
        status, took = ask(pod, "/ping")
        assert status == 200
        pings.append(took)
        time.sleep(0.05)
    return slowest(users), slowest(pings)


def guess(pod: Container, over: threading.Event, number: int, answers: list[tuple[bool, int]]) -> None:
    """Guess passwords as fast as the door lets us, over kept connections; the right one is among them."""
    while not over.is_set():
        connection = http.client.HTTPConnection(pod.address, PORT, timeout=20)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            for each in range(1000):
                right = each % 5 == 4
                password = "right" if right else f"wrong{number}.{each}"
                connection.request("GET", "/", headers={"Authorization": basic(f"me:{password}")})
                answer = connection.getresponse()
                answer.read()
                answers.append((right, answer.status))
                if over.wait(0.02):  # the guessers' own work is not to be measured
                    break


def test_guessers_are_slowed_down_and_nobody_else(pod: Container) -> None:
    """All come from one address, as behind a provider's proxy. What is not judged tells them nothing."""
    over = threading.Event()
    answers: list[tuple[bool, int]] = []
    threads = [threading.Thread(target=guess, args=(pod, over, each, answers)) for each in range(GUESSERS)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        user, ping = measured(pod)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    took = time.monotonic() - begun
    assert user < 0.3
    assert ping < 0.1
    assert len(answers) > 1000
    assert {status for _, status in answers} <= {200, 401, 429}
    # Two a second are looked at, and twenty at once in the beginning.
    judged = [(right, status) for right, status in answers if status != 429]
    assert len(judged) <= 2 * took + 25
    assert {status for right, status in judged if right} <= {200}
    assert (True, 429) in answers, "the right password waits as the wrong ones do"


def test_who_has_no_cookie_is_slowed_down_and_not_refused(strange: Container) -> None:
    assert [ask(strange, "/system_stats", "me:right")[0] for _ in range(14)] == [200] * 14


def test_who_has_logged_in_never_waits(pod: Container) -> None:
    sessions = [
        ("me:right", {"Cookie": COOKIES[pod.name]}),
        ("", {"Cookie": cookie_of(pod, X_Forwarded_Proto="https"), "X_Forwarded_Proto": "https"}),
    ]
    for login, headers in sessions:
        begun = time.monotonic()
        assert [ask(pod, "/system_stats", login, **headers)[0] for _ in range(200)] == [200] * 200
        assert time.monotonic() - begun < 10


def test_the_cookie_of_plain_http_opens_nothing_by_itself(pod: Container) -> None:
    """All ports of a machine get it."""
    assert ask(pod, "/system_stats", Cookie=COOKIES[pod.name])[0] == 401
    assert ask(pod, "/system_stats", "me:wrong", Cookie=COOKIES[pod.name])[0] == 401


def send_endless(pod: Container, head: str, body: bytes) -> bytes:
    """Send a request whose body does not end; returns the first line of the answer."""
    with socket.create_connection((pod.address, PORT), timeout=10) as caller:
        with contextlib.suppress(OSError):
            caller.sendall(f"{head}\r\nHost: x\r\n".encode() + body)
        return caller.recv(64).partition(b"\r\n")[0]


@pytest.mark.parametrize("path", ["/ping", "/healthz", "/", "/upload/image"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_stranger_fills_no_disk(strange: Container, method: str, path: str) -> None:
    """What is refused is not kept until it is whole."""
    sized = b"Content-Length: 1000000000000\r\n\r\n" + bytes(8 << 20)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n" + (b"100000\r\n" + bytes(1 << 20) + b"\r\n") * 8
    for body in (sized, chunked):
        said = send_endless(strange, f"{method} {path} HTTP/1.1", body)
        assert said.split()[1:2] in ([b"401"], [b"405"], [b"413"]), said
    assert strange.exec("find", "/run/podkiln/login/body", "-type", "f").stdout == ""
    assert ask(strange, "/ping")[0] == 200


@pytest.fixture(scope="module")
def strange(lazy: Image) -> Iterator[Container]:
    env = {**ENV, "HEALTH_CHECK_PATH": "/healthz", "PORT_HEALTH": str(PORT)}
    with Container(lazy.name, env=env) as container:
        container.wait_log("podkiln: ready in")
        yield container


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


def test_a_strangers_name_is_one_line_of_the_log_and_only_text(strange: Container) -> None:
    before = strange.logs()
    came_from = "a" * 3951 + "podkiln: ready in 0.0 s"
    assert ask(strange, "/", f"{FORGED}:wrong", X_Forwarded_For=came_from)[0] == 401
    strange.wait_log("from 1")
    (line,) = set(strange.logs().splitlines()) - set(before.splitlines())
    assert line.startswith('podkiln: a login as "x\\x0Apodkiln, ready in 0.0 s\\x0D\\x0A\\x1B[2J')
    assert line.isprintable()
    assert "wrong" not in line
    assert line.endswith(f' "{"a" * 100}".')
