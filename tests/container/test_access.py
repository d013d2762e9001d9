"""The doors of a pod: closed by themselves, opened by variables; what they check against is nobody else's."""

from __future__ import annotations

import base64
import functools
import http.client
import json
import os
import re
import shlex
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from containers import PORT, Container
from images import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from images import Image

pytestmark = pytest.mark.engine
SECRETS = ("HF_TOKEN", "CIVITAI_TOKEN", "WEB_PASSWORD", "JUPYTER_PASSWORD", "JUPYTER_TOKEN", "RUNPOD_API_KEY")
CANARY = "c4n4ry"
VALUES = {name: f"{CANARY}-{name.lower()}" for name in SECRETS}
OURS = ("WEB_PASSWORD", "JUPYTER_PASSWORD", "JUPYTER_TOKEN")
LOGIN = f"me:{VALUES['WEB_PASSWORD']}"
MIB = 1 << 20
SINK = {str(ROOT / "tests/servers/upload_counter.py"): "/opt/ComfyUI/main.py:ro"}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key; its public half lies beside it."""
    path = tmp_path_factory.mktemp("ssh") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("volume")


@pytest.fixture(scope="module")
def pod(lazy: Image, key: Path, volume: Path) -> Iterator[Container]:
    """A pod with every door open, on a volume, as RunPod would start it."""
    env = {**VALUES, "PUBLIC_KEY": key.with_suffix(".pub").read_text(), "WEB_USER": "me"}
    env |= {"RUNPOD_POD_ID": "abc", "MODELS": "none"}
    # Without it a container's root cannot see what nginx's workers know, and the tests want to.
    options = ["--cap-add=SYS_PTRACE"]
    with Container(lazy.name, env=env, mounts={str(volume): "/workspace"}, options=options) as container:
        wait_open(container, PORT, 22, 8888)
        container.wait_log("podkiln: ready in")
        yield container


def wait_open(pod: Container, *ports: int) -> None:
    """Wait until something listens on each port."""

    def listening() -> bool:
        assert pod.state()["Running"], pod.logs()
        return set(ports) <= listeners(pod)

    pod._until(listening, f"does not listen on all of {ports}", 30)


def listeners(pod: Container) -> set[int]:
    """Return the TCP ports that are listened on, by whatever address (proc_net_tcp.rst: state 0A)."""
    rows = (line.split() for line in pod.exec("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout.splitlines())
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == "0A"}


def ask(
    pod: Container,
    path: str,
    login: str | None = None,
    port: int = PORT,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Ask over HTTP; returns status, headers by lower-case name, and body."""
    headers = dict(headers or {})
    if login == LOGIN and port == PORT:
        headers.setdefault("Cookie", cookie_of(pod.address))  # or the door would take this for guessing
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    with closing(http.client.HTTPConnection(pod.address, port, timeout=10)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = b"" if answer.status == 101 else answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


@functools.cache
def cookie_of(address: str) -> str:
    """Log in as a browser does, and keep the cookie that says so: it opens nothing by itself."""
    headers = {"Authorization": "Basic " + base64.b64encode(LOGIN.encode()).decode()}
    with closing(http.client.HTTPConnection(address, PORT, timeout=10)) as connection:
        connection.request("GET", "/", headers=headers)
        answer = connection.getresponse()
        answer.read()
        return (answer.headers["Set-Cookie"] or "").partition(";")[0]


def ssh(pod: Container, key: Path, *command: str, port: int = 22) -> subprocess.CompletedProcess[str]:
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
    argv = ["ssh", "-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-p", str(port)]
    argv += [word for option in options for word in ("-o", option)]
    return subprocess.run(
        [*argv, f"root@{pod.address}", *command], capture_output=True, text=True, check=False, timeout=30
    )


# --- closed by themselves


def test_nothing_is_open_by_itself(pods: dict[str, Container]) -> None:
    pods["lazy"].wait_ready()
    assert listeners(pods["lazy"]) & {22, 8888} == set()
    commands = pods["lazy"].exec("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    assert not re.search("sshd|jupyter", commands)


def test_an_image_holds_no_host_key(pods: dict[str, Container]) -> None:
    assert "ssh_host" not in pods["lazy"].exec("ls", "/etc/ssh").stdout


@pytest.mark.parametrize("given", ["WEB_USER", "WEB_PASSWORD"])
def test_half_a_login_is_refused(pods: dict[str, Container], given: str) -> None:
    env = {given: CANARY, "PODKILN_RUN": "/tmp/half"}
    done = pods["lazy"].exec("/start.sh", env=env, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith(f"podkiln: {given} is set and ")
    assert CANARY not in done.stderr


def test_an_open_comfyui_on_runpod_is_warned_about(pods: dict[str, Container]) -> None:
    done = pods["lazy"].exec("/start.sh", "--explain", env={"RUNPOD_POD_ID": "abc"})
    assert "warning: ComfyUI on port 8188 is open to everybody" in done.stderr


# --- ssh


@pytest.mark.smoke
def test_ssh_takes_the_key_and_nothing_else(pod: Container, key: Path, tmp_path: Path) -> None:
    assert ssh(pod, key, "id -un").stdout == "root\n"
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    refused = ssh(pod, other, "true")
    assert refused.returncode == 255
    assert "Permission denied (publickey)." in refused.stderr


def test_ssh_sees_the_pods_variables(pod: Container, key: Path) -> None:
    """In a command, in a login shell, and in none of them what only the doors need."""
    script = 'python -c "import os, json; print(json.dumps(dict(os.environ)))"'
    for command in (script, f"bash -lc '{script}'"):
        seen = json.loads(ssh(pod, key, command).stdout)
        assert seen["HF_TOKEN"] == VALUES["HF_TOKEN"]
        assert seen["RUNPOD_POD_ID"] == "abc"
        assert seen["PATH"].startswith("/opt/venv/bin:")
        assert not set(OURS) & set(seen)


@pytest.mark.smoke
def test_files_go_through_ssh(pod: Container, key: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    options = ["-i", str(key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    target = f"root@{pod.address}:/tmp/file"
    subprocess.run(["scp", "-q", "-F", "none", *options, tmp_path / "file", target], check=True)
    assert pod.read("/tmp/file") == "hello"


def test_the_host_key_is_the_volumes(pod: Container, volume: Path, lazy: Image, key: Path) -> None:
    """Another pod on the same volume has the same one; one whose volume cannot be written has its own."""
    fingerprint = "its own fingerprint is (SHA256:[^.]+)"
    first = re.search(fingerprint, pod.logs())
    assert first
    kept = volume / ".podkiln/ssh"
    assert (kept.stat().st_mode & 0o777, (kept / "ssh_host_ed25519_key").stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )
    env = {"SSH_PUBLIC_KEY": key.with_suffix(".pub").read_text(), "SSH_PORT": "2222", "MODELS": "none"}
    for mode, same in (("", True), (":ro", False)):
        with Container(lazy.name, env=env, mounts={str(volume): f"/workspace{mode}"}) as other:
            wait_open(other, 2222)
            assert ssh(other, key, "true", port=2222).returncode == 0
            found = re.search(fingerprint, other.logs())
            assert found
            assert (found[1] == first[1]) is same
            assert ("is read-only" in other.logs()) is not same


# --- Jupyter


@pytest.mark.smoke
def test_jupyter_asks_for_its_token_or_password(pod: Container) -> None:
    assert ask(pod, "/api/contents", port=8888)[0] == 403
    assert ask(pod, "/api/contents?token=wrong", port=8888)[0] == 403
    assert ask(pod, f"/api/contents?token={VALUES['JUPYTER_TOKEN']}", port=8888)[0] == 200
    assert ask(pod, "/lab", port=8888)[1]["location"].startswith("/login")


def test_jupyter_takes_the_password_too(pod: Container) -> None:
    status, headers, page = ask(pod, "/login", port=8888)
    assert status == 200
    xsrf = re.search(rb'name="_xsrf" value="([^"]+)"', page)
    assert xsrf
    cookie = headers["set-cookie"].partition(";")[0]
    for password, status in ((VALUES["JUPYTER_PASSWORD"], 302), ("wrong", 401)):
        with closing(http.client.HTTPConnection(pod.address, 8888, timeout=10)) as connection:
            body = f"_xsrf={xsrf[1].decode()}&password={password}"
            kind = "application/x-www-form-urlencoded"
            connection.request("POST", "/login", body, {"Cookie": cookie, "Content-Type": kind})
            assert connection.getresponse().status == status


def test_jupyter_shows_the_workspace(pod: Container, volume: Path) -> None:
    body = ask(pod, f"/api/contents?token={VALUES['JUPYTER_TOKEN']}", port=8888)[2]
    assert {entry["name"] for entry in json.loads(body)["content"]} <= {
        path.name for path in volume.iterdir()
    }
    assert json.loads(body)["content"]


KERNEL = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="comfyui")
client.execute_interactive("import sys, yaml; print(sys.executable, yaml.__file__)", timeout=30)
manager.shutdown_kernel(now=True)
"""


def test_a_notebook_has_comfyuis_packages(pod: Container) -> None:
    """And ComfyUI has none of Jupyter's."""
    done = pod.exec("/opt/jupyter/bin/python", "-c", KERNEL, env={"JUPYTER_PATH": "/opt/podkiln/access"})
    assert done.stdout.split()[0] == "/opt/venv/bin/python"
    assert done.stdout.split()[1].startswith("/opt/venv/lib/")
    assert pod.exec("/opt/venv/bin/python", "-c", "import tornado", check=False).returncode == 1


# --- the login before ComfyUI


@pytest.mark.smoke
def test_comfyui_asks_for_a_login(pod: Container) -> None:
    status, headers, _ = ask(pod, "/system_stats")
    assert status == 401
    assert headers["www-authenticate"] == 'Basic realm="ComfyUI"'
    assert "set-cookie" not in headers
    assert ask(pod, "/system_stats", login="me:wrong")[0] == 401
    status, _, body = ask(pod, "/system_stats", login=LOGIN)
    assert status == 200
    assert " --listen 127.0.0.1 --port 18188 " in " ".join(json.loads(body)["system"]["argv"])


def test_there_is_no_way_around_the_door(pod: Container, pods: dict[str, Container]) -> None:
    pods["lazy"].wait_ready()
    for each in (pod, pods["lazy"]):
        with pytest.raises(ConnectionRefusedError):
            ask(each, "/system_stats", port=18188)


def test_who_has_logged_in_is_known_by_a_cookie(pod: Container) -> None:
    """Safari sends no password along with a websocket. By plain http others would get the cookie too."""
    assert "set-cookie" not in ask(pod, "/system_stats", login=LOGIN)[1]
    https = {"X-Forwarded-Proto": "https"}
    assert "set-cookie" not in ask(pod, "/system_stats", login="me:wrong", headers=https)[1]
    cookie = ask(pod, "/system_stats", login=LOGIN, headers=https)[1]["set-cookie"]
    assert cookie.startswith("__Host-podkiln=")
    assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    kept = f"a=b; {cookie.partition(';')[0]}; c=d"
    status, headers, _ = ask(pod, "/system_stats", headers={"Cookie": kept})
    assert status == 200
    assert "set-cookie" not in headers
    for other in ("x", cookie.partition(";")[0].swapcase(), cookie.partition(";")[0][:-1]):
        assert ask(pod, "/system_stats", headers={"Cookie": other})[0] == 401


@pytest.mark.smoke
def test_websockets_pass(pod: Container) -> None:
    wanted = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    wanted["Sec-WebSocket-Key"] = base64.b64encode(os.urandom(16)).decode()
    assert ask(pod, "/ws?clientId=x", headers=wanted)[0] == 401
    status, headers, _ = ask(pod, "/ws?clientId=x", login=LOGIN, headers=wanted)
    assert (status, headers["upgrade"]) == (101, "websocket")


@pytest.mark.smoke
def test_ping_passes_without_a_login(pod: Container) -> None:
    assert ask(pod, "/ping")[0] == 200
    assert "set-cookie" not in ask(pod, "/ping", login=LOGIN)[1]


BEFORE = """
import os, sys
sys.path.insert(0, "/opt/podkiln")
from pathlib import Path
from pod.services import nginx
from pod.services.config import Login
made = nginx.prepare(Login("me", "x"), Path("/opt/podkiln"), Path("/run/second"), nginx.Ports(18888, 9, 9))
os.execve(made.argv[0], made.argv, dict(made.environ))
"""


def test_before_anything_answers_ping_tells_nobody_the_session(pod: Container) -> None:
    """A second login, with nothing behind it: as one is for a moment at every start."""
    run = ["/usr/bin/python3", "-I", "-S", "-c", BEFORE]
    pod.exec("sh", "-c", f"{shlex.join(run)} >/dev/null 2>&1 &")
    wait_open(pod, 18888)
    try:
        status, headers, _ = ask(pod, "/ping", port=18888)
        assert status == 204
        assert "set-cookie" not in headers
        assert ask(pod, "/", port=18888)[0] == 401
    finally:
        pod.exec("pkill", "-f", "/run/second/")


def test_the_health_check_knows_where_comfyui_is(pod: Container) -> None:
    assert pod.exec("/usr/bin/python3", "-I", "-S", "/opt/podkiln", "health").returncode == 0


def test_large_uploads_and_slow_answers_pass_as_they_come(lazy: Image) -> None:
    """1.1 GB through a pod that has no room to keep a tenth of it, and no password behind it."""
    env = {"WEB_USER": "me", "WEB_PASSWORD": VALUES["WEB_PASSWORD"], "MODELS": "none"}
    options = ["--read-only", "--tmpfs=/run:size=16m", "--tmpfs=/tmp:size=16m", "--tmpfs=/workspace:size=16m"]
    options += ["--memory=256m"]
    length = 1100 * MIB
    with Container(lazy.name, env=env, mounts=SINK, options=options) as pod:
        pod.wait_log("podkiln: ready in")
        wait_open(pod, PORT)
        with closing(http.client.HTTPConnection(pod.address, PORT, timeout=60)) as connection:
            connection.putrequest("POST", "/upload/image")
            connection.putheader("Authorization", "Basic " + base64.b64encode(LOGIN.encode()).decode())
            connection.putheader("Content-Length", str(length))
            connection.endheaders()
            piece = bytes(MIB)
            for _ in range(length // MIB):
                connection.send(piece)
            answer = json.load(connection.getresponse())
        assert answer == {"bytes": length, "authorization": None}

        with closing(http.client.HTTPConnection(pod.address, PORT, timeout=10)) as connection:
            login = {"Authorization": "Basic " + base64.b64encode(LOGIN.encode()).decode()}
            begun = time.monotonic()
            connection.request("GET", "/slow", headers=login)
            answer = connection.getresponse()
            assert answer.read(5) == b"first"
            assert time.monotonic() - begun < 0.9
            assert answer.read() == b"later"


def test_before_comfyui_answers_the_login_says_so(lazy: Image) -> None:
    env = {"WEB_USER": "me", "WEB_PASSWORD": VALUES["WEB_PASSWORD"], "CONTRACT_BOOT_SECONDS": "60"}
    with Container(lazy.name, env={**env, "MODELS": "none"}) as pod:
        wait_open(pod, PORT)
        status, headers, body = ask(pod, "/", login=LOGIN)
        assert (status, headers["retry-after"]) == (503, "3")
        assert b"ComfyUI does not answer yet" in body
        assert ask(pod, "/")[0] == 401


# --- where a request comes from

OWN = f"http://pod.test:{PORT}"
# Headers as browsers, programs and proxies send them, and the status of `/system_stats` and of `/`.
REQUESTS: list[tuple[dict[str, str], int, int]] = [
    ({}, 200, 200),
    ({"Origin": OWN}, 200, 200),
    ({"Origin": OWN.upper()}, 200, 200),
    ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, 200, 200),
    ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200, 200),
    ({"Origin": "null"}, 403, 403),
    ({"Origin": "http://evil.test"}, 403, 403),
    ({"Origin": "http://evil.test", "Sec-Fetch-Site": "same-origin"}, 403, 403),
    ({"Origin": f"http://pod.test.evil.test:{PORT}"}, 403, 403),
    ({"Origin": f"http://other.pod.test:{PORT}"}, 403, 403),
    ({"Origin": "http://pod.test"}, 403, 403),
    ({"Origin": "http://pod.test:8189"}, 403, 403),
    ({"Origin": f"{OWN}/"}, 403, 403),
    ({"Origin": f"{OWN}, http://evil.test"}, 403, 403),
    ({"Origin": OWN, "X-Forwarded-Proto": "https"}, 403, 403),
    ({"Origin": OWN.replace("http", "https"), "X-Forwarded-Proto": "https"}, 200, 200),
    ({"Origin": OWN.replace("http", "https"), "X-Forwarded-Proto": "https, http"}, 200, 200),
    ({"Origin": OWN.replace("http", "https"), "X-Forwarded-Proto": "wss"}, 200, 200),
    ({"Origin": OWN.replace("http", "https"), "X-Forwarded-Proto": "http"}, 403, 403),
    ({"Origin": OWN.replace("http", "https")}, 200, 200),  # a proxy that does not say so
    ({"Origin": "https://a.test", "Host": "a.test:443", "X-Forwarded-Proto": "https"}, 200, 200),
    ({"Origin": "http://a.test", "Host": "a.test:80"}, 200, 200),
    ({"Origin": "http://[::1]:8188", "Host": "[::1]:8188"}, 200, 200),
    ({"Origin": "https://a.test", "Host": "localhost:8188", "X-Forwarded-Host": "a.test"}, 200, 200),
    ({"Origin": "https://b.test", "Host": "localhost:8188", "X-Forwarded-Host": "a.test"}, 403, 403),
    ({"Referer": f"{OWN}/x?y"}, 200, 200),
    ({"Referer": "http://evil.test/"}, 403, 200),  # by plain http; the page itself may be a link's
    ({"Referer": f"http://pod.test:{PORT + 1}/"}, 403, 200),
    ({"Referer": "https://a.test/", "Host": "localhost:8188", "X-Forwarded-Host": "a.test"}, 200, 200),
    ({"Referer": "http://evil.test/", "Sec-Fetch-Site": "same-origin"}, 200, 200),
    ({"Sec-Fetch-Site": "none", "Sec-Purpose": "prefetch"}, 403, 403),
    ({"Sec-Fetch-Site": "none", "Sec-Purpose": "prefetch;prerender", "Sec-Fetch-Mode": "navigate"}, 403, 403),
    ({"Sec-Fetch-Site": "cross-site", "Purpose": "prefetch", "Sec-Fetch-Mode": "navigate"}, 403, 403),
    ({"X-Moz": "prefetch"}, 403, 403),
    ({"Sec-Fetch-Site": "same-origin", "Sec-Purpose": "prefetch"}, 200, 200),
    ({"Sec-Fetch-Site": "cross-site"}, 403, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403, 403),
    ({"Sec-Fetch-Site": "something new"}, 403, 403),
    ({"Origin": OWN, "Sec-Fetch-Site": "same-site"}, 403, 403),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403, 200),
    ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 403, 200),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403, 403),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "embed"}, 403, 403),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "http://a.test"}, 403, 403),
]


@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_the_door_judges_by_origin(number: int, pod: Container, pods: dict[str, Container]) -> None:
    """With a login and without; a program that says nothing is not a browser."""
    headers, status, page = REQUESTS[number]
    for each, login in ((pod, LOGIN), (pods["lazy"], None)):
        for path, expected in (("/system_stats", status), ("/", page), ("/?a=b", page)):
            told = {"Host": f"pod.test:{PORT}", **headers}
            assert ask(each, path, login, headers=told)[0] == expected, (path, login)


def test_a_page_may_not_ask_whether_it_may(pod: Container) -> None:
    """Or it could say in headers of its own what only proxies say."""
    with closing(http.client.HTTPConnection(pod.address, PORT, timeout=10)) as connection:
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-forwarded-host",
        }
        connection.request("OPTIONS", "/queue", headers={"Origin": "http://evil.test", **asked})
        answer = connection.getresponse()
        assert answer.status == 403
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_an_origin_that_the_owner_lets_in_comes_in(lazy: Image) -> None:
    env = {"WEB_USER": "me", "WEB_PASSWORD": VALUES["WEB_PASSWORD"], "MODELS": "none"}
    env["COMFYUI_ARGS"] = "--enable-cors-header https://app.test"
    foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    with Container(lazy.name, env=env) as pod:
        pod.wait_log("podkiln: ready in")
        wait_open(pod, PORT)
        for origin, status in (("https://app.test", 200), ("https://other.test", 403)):
            assert ask(pod, "/system_stats", LOGIN, headers={"Origin": origin, **foreign})[0] == status
        assert ask(pod, "/system_stats", headers={"Origin": "https://app.test", **foreign})[0] == 401


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_door_listens_where_comfyui_was_told_to(address: str, lazy: Image) -> None:
    """And the health check, /ping and podkiln-comfy find ComfyUI all the same."""
    env = {"COMFYUI_ARGS": f"--listen {address}", "MODELS": "none", "PORT_HEALTH": "9000"}
    with Container(lazy.name, env=env, options=["--sysctl=net.ipv6.conf.all.disable_ipv6=0"]) as pod:
        pod.wait_log("podkiln: ready in")
        wait_open(pod, PORT)
        with pytest.raises(ConnectionRefusedError):
            ask(pod, "/system_stats")
        host = f"[{address}]" if ":" in address else address
        for url in (f"http://{host}:{PORT}/system_stats", f"http://{host}:{PORT}/ping"):
            code = f"import urllib.request; print(urllib.request.urlopen({url!r}).status)"
            assert pod.exec("/usr/bin/python3", "-c", code).stdout == "200\n"
        assert ask(pod, "/ping", port=9000)[0] == 200
        assert pod.exec("/usr/bin/python3", "-I", "-S", "/opt/podkiln", "health").returncode == 0


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"PORT_HEALTH": "18188"}, "PORT_HEALTH and COMFYUI_PORT behind the door are both 18188"),
        (
            {"COMFYUI_PORT": "8190"},
            "the port inside the pod that answers /ping and COMFYUI_PORT are both 8190",
        ),
        ({"WEB_USER": "#me", "WEB_PASSWORD": "x"}, "WEB_USER='#me' cannot be a user's name"),
        ({"HEALTH_CHECK_PATH": "/a b"}, "HEALTH_CHECK_PATH='/a b' is not a plain path"),
    ],
)
def test_a_door_that_leads_nowhere_is_refused(
    pods: dict[str, Container], env: dict[str, str], says: str
) -> None:
    done = pods["lazy"].exec("/start.sh", env={**env, "PODKILN_RUN": "/tmp/nowhere"}, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith(f"podkiln: {says}")


# --- each for itself


def kill(pod: Container, word: str) -> None:
    """Kill the oldest process whose command line holds a word."""
    assert pod.exec("pkill", "-KILL", "-o", "-f", word).returncode == 0


def test_a_service_that_dies_is_started_again_and_costs_nothing_else(lazy: Image, key: Path) -> None:
    env = {"WEB_USER": "me", "WEB_PASSWORD": VALUES["WEB_PASSWORD"], "MODELS": "none"}
    env["PUBLIC_KEY"] = key.with_suffix(".pub").read_text()
    with Container(lazy.name, env=env) as pod:
        pod.wait_log("podkiln: ready in")
        wait_open(pod, PORT, 22)
        kill(pod, "nginx: master")
        pod.wait_log("podkiln: the login before ComfyUI has ended (signal 9); it is started again in 1 s.")
        pod._until(lambda: ask_or_none(pod) == 200, "does not serve again", 10)
        time.sleep(1.5)  # nginx tries for 2.5 s to get its port
        assert pod.exec("pgrep", "-f", "nginx: master").stdout
        assert "bind() to" not in pod.logs()
        assert ssh(pod, key, "true").returncode == 0
        assert "ComfyUI ended" not in pod.logs()
        assert pod.stop() < 10


def ask_or_none(pod: Container) -> int | None:
    try:
        return ask(pod, "/system_stats", login=LOGIN)[0]
    except OSError:
        return None


# --- secrets

# Every file that others may read, every command line, and the environment of all that is not root's.
SEARCH = r"""
import os, pathlib, stat, sys
canary = sys.argv[1].encode()
for folder, names, files in os.walk(sys.argv[2]):
    names[:] = [n for n in names if os.path.join(folder, n) not in ("/proc", "/sys", "/dev")]
    for name in files:
        path = os.path.join(folder, name)
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o077:
            continue
        if canary in pathlib.Path(path).read_bytes():
            print("file", path, oct(found.st_mode))
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if process.name == str(os.getpid()):
        continue
    try:
        if canary in (process / "cmdline").read_bytes():
            print("command line", process)
        if process.stat().st_uid and canary in (process / "environ").read_bytes():
            print("environment", process)
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        pass
"""


@pytest.mark.smoke
def test_a_canary_is_found_nowhere_that_others_can_look(pod: Container, key: Path) -> None:
    """After a full boot with every door open, and a visit through each of them."""
    ask(pod, "/system_stats", login=LOGIN)
    ask(pod, f"/lab?token={VALUES['JUPYTER_TOKEN']}", port=8888)
    ssh(pod, key, "true")
    assert CANARY not in pod.logs()
    assert pod.exec("/usr/bin/python3", "-c", SEARCH, CANARY, "/").stdout == ""


def test_the_search_would_find_it(pod: Container) -> None:
    pod.exec("sh", "-c", "echo planted-1 > /tmp/planted; sh -c ': planted-2; sleep 20' & sleep 0.1")
    found = pod.exec("/usr/bin/python3", "-c", SEARCH, "planted-", "/tmp").stdout
    pod.exec("rm", "/tmp/planted")
    assert "file /tmp/planted 0o100644" in found
    assert "command line /proc/" in found


def processes(pod: Container) -> dict[str, tuple[int, str]]:
    """Return uid and environment of each process, by its command line."""
    script = """
import json, pathlib
found = {}
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (process / "cmdline").read_text().replace("\\0", " ").strip()
        found[words] = process.stat().st_uid, (process / "environ").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        pass
print(json.dumps(found))
"""
    done = pod.exec("/usr/bin/python3", "-c", script)
    return {words: (uid, environ) for words, (uid, environ) in json.loads(done.stdout).items()}


def test_each_process_knows_only_what_it_needs(pod: Container) -> None:
    running = processes(pod)

    def environment(word: str) -> tuple[int, str]:
        return next(found for words, found in running.items() if word in words)

    _, comfyui = environment(" main.py ")
    assert VALUES["HF_TOKEN"] in comfyui  # nodes fetch with it
    for name in OURS:
        assert VALUES[name] not in comfyui
        assert VALUES[name] not in environment("jupyter-lab")[1]
    assert CANARY not in environment("sshd: /usr/sbin/sshd")[1]
    uid, worker = environment("nginx: worker process")
    assert uid != 0
    assert CANARY not in worker


def test_no_variable_of_a_door_is_in_the_image(lazy: Image) -> None:
    assert not [
        line for line in lazy.config()["config"]["Env"] if line.startswith(("WEB_", "JUPYTER_", "PUBLIC_"))
    ]


# --- vast.ai's ssh and jupyter modes


@pytest.fixture
def rented(lazy: Image, key: Path) -> Iterator[Container]:
    """A container whose entry point is somebody else's, as vast.ai's ssh and jupyter modes start it."""
    env = {**VALUES, "SSH_PUBLIC_KEY": key.with_suffix(".pub").read_text(), "VAST_CONTAINERLABEL": "C.1"}
    env |= {"MODELS": "none", "JUPYTER_PORT": "8080"}
    del env["WEB_PASSWORD"]
    options = ["--entrypoint=/bin/bash"]
    sshd_of_their_own = (
        "mkdir -p /run/sshd && ssh-keygen -A >/dev/null && /usr/sbin/sshd; exec sleep infinity"
    )
    with Container(lazy.name, "-c", sshd_of_their_own, env=env, options=options) as container:
        wait_open(container, 22)
        yield container


ON_START = "nohup /start.sh </dev/null >/var/log/podkiln.log 2>&1 &"


def test_it_starts_from_an_on_start_script(rented: Container) -> None:
    rented.exec("bash", "-c", ON_START)
    rented.wait_ready()
    wait_open(rented, 8080)
    log = rented.read("/var/log/podkiln.log")
    assert "warning: ComfyUI on port 8188 is open to everybody, for vast.ai maps the port" in log
    assert "podkiln: port 22 is taken already, so sshd is not started; SSH_PORT moves it." in log
    # A shell of their sshd, which begins with nothing.
    argv = ["env", "-i", "HOME=/root", "PATH=/usr/bin:/bin", "bash", "-lc", "echo $HF_TOKEN $PATH"]
    assert rented.exec(*argv).stdout.split()[0] == VALUES["HF_TOKEN"]
    assert "/opt/venv/bin:" in rented.exec(*argv).stdout


def test_a_second_start_leaves_the_first_alone(rented: Container) -> None:
    rented.exec("bash", "-c", ON_START)
    rented.wait_ready()
    before = rented.exec("pgrep", "-f", "main.py").stdout
    again = rented.exec("/start.sh")
    assert again.returncode == 0
    assert again.stderr == "podkiln: start.sh is running in this pod already; this one ends.\n"
    assert rented.exec("pgrep", "-f", "main.py").stdout == before


def test_a_run_folder_that_cannot_be_written_is_one_sentence(rented: Container) -> None:
    done = rented.exec("/start.sh", env={"PODKILN_RUN": "/proc/podkiln"}, check=False)
    assert done.returncode == 70
    assert done.stderr.splitlines()[-1].startswith("podkiln: /proc/podkiln cannot be written (")
    assert "start.sh: line" not in done.stderr


def test_it_starts_without_stdin_and_ends_without_tini(rented: Container) -> None:
    rented.exec("bash", "-c", "nohup /start.sh <&- >/var/log/podkiln.log 2>&1 &")
    rented.wait_ready()
    wait_open(rented, 8080)
    rented.exec("pkill", "-TERM", "-o", "-f", "/start.sh")
    ours = "start.sh|main.py|/opt/podkiln|jupyter"
    rented._until(lambda: not rented.exec("pgrep", "-f", ours, check=False).stdout, "still has processes", 12)
    rented.exec("bash", "-c", ON_START)
    rented.wait_ready()
