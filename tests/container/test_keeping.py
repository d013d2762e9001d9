"""ComfyUI is kept alive, as far as that goes; what it said is kept on the volume; and it is left in peace."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING

import pytest
from containers import Container

if TYPE_CHECKING:
    from images import Image
    from servers.hub import Hub

pytestmark = pytest.mark.engine
PYTHON = "/usr/bin/python3"
LOG = "/workspace/logs/comfyui.log"
PROMPT = {
    "prompt": {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "test"}},
    }
}
# ComfyUI's process, not the supervisor's, which has main.py among its arguments too.
FIND = r"""
import os, pathlib, signal
for cmdline in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try:
        words = cmdline.read_bytes().split(b"\0")
    except OSError:  # it has ended meanwhile
        continue
    if words[1:2] == [b"main.py"]:
        comfyui = int(cmdline.parent.name)
"""
KILL = f"{FIND}\nos.kill(comfyui, signal.SIGKILL)"
# 11 MiB in lines, as ComfyUI would print them.
CHATTER = f"""{FIND}
with open(f"/proc/{{comfyui}}/fd/1", "wb") as out:
    for number in range(11 * 1024):
        out.write(b"%1023d\\n" % number)
"""


def ping(pod: Container, port: int) -> int:
    """Return the status of /ping; 0 where nobody answers yet."""
    connection = http.client.HTTPConnection(pod.address, port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def healthy(pod: Container) -> bool:
    return pod.exec(PYTHON, "-I", "-S", "/opt/podkiln", "health", check=False).returncode == 0


def test_a_killed_comfyui_is_started_again(lazy: Image) -> None:
    with Container(lazy.name, env={"MODELS": "none"}) as pod:
        pod.wait_log("podkiln: ready in")
        pod.exec(PYTHON, "-c", KILL)
        pod.wait_log("podkiln: ready again in")
        assert pod.get("/system_stats")["system"]["argv"][0] == "main.py"
        assert "ComfyUI has ended: exit code 137, SIGKILL: something killed it" in pod.logs()
        boot = json.loads(pod.read("/run/podkiln/boot.json"))
        assert boot["ready"] < boot["restarts"][0]["ended"] < boot["restarts"][0]["ready"]


def test_one_that_ran_out_of_memory_says_so_with_figures(lazy: Image) -> None:
    env = {"MODELS": "none", "CONTRACT_PROMPT_MIB": "600"}
    with Container(lazy.name, env=env, options=["--memory=300m", "--memory-swap=300m"]) as pod:
        pod.wait_log("podkiln: ready in")
        assert pod.post("/prompt", PROMPT)[0] == 200
        log = pod.wait_log("podkiln: ready again in")
    assert "SIGKILL: out of memory, as the pod may use 300 MiB of RAM and ComfyUI had" in log


def test_a_prompt_in_work_is_interrupted_and_a_fetch_kept_before_the_pod_ends(tiny: Image, hub: Hub) -> None:
    hub.rate = 4096
    env = {"CONTRACT_PROMPT_SECONDS": "120", "HF_ENDPOINT": hub.url, "MODELS": "present"}
    with Container(tiny.name, env=env) as pod:
        pod.wait_log("podkiln: ready in")
        for _ in range(2):
            assert pod.post("/prompt", PROMPT)[0] == 200
        pod.wait_log("fetching")
        assert pod.stop() < 10
        assert pod.state()["ExitCode"] == 0
        log = pod.logs()
    said = ["podkiln: stopping", "Processing interrupted", "Stopped server"]
    assert all(text in log for text in said), log
    assert log.index("Processing interrupted") < log.index("Stopped server")
    assert log.count("Processing interrupted") == 1
    assert "fetch: stopped; what has arrived is kept." in log


def test_ping_agrees_with_the_health_check(lazy: Image) -> None:
    env = {"MODELS": "none", "PORT_HEALTH": "9000", "CONTRACT_BOOT_SECONDS": "5"}
    with Container(lazy.name, env=env) as pod:
        end = time.monotonic() + 30
        while not (status := ping(pod, 9000)):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert (status, healthy(pod)) == (204, False)
        pod.wait_log("podkiln: ready in")
        time.sleep(1.1)  # it asks ComfyUI once a second at most
        assert (ping(pod, 9000), healthy(pod)) == (200, True)


def test_what_is_said_is_on_the_volume_in_files_of_limited_size(lazy: Image) -> None:
    with Container(lazy.name, env={"MODELS": "none"}) as pod:
        pod.wait_log("podkiln: ready in")
        pod.wait_log("fetch: 0 fetched")  # whichever comes last
        first = pod.read(LOG)
        assert "podkiln: ComfyUI's arguments: --listen" in first
        assert "Starting server" in first
        assert "podkiln: ready in" in first
        pod.exec(PYTHON, "-c", CHATTER)
        sizes = [int(size) for size in pod.exec("stat", "--format=%s", LOG, f"{LOG}.1").stdout.split()]
    assert 9 << 20 < sizes[1] <= 10 << 20
    assert sum(sizes) >= 11 << 20


def test_a_full_volume_costs_the_log_and_nothing_else(lazy: Image) -> None:
    options = ["--tmpfs=/workspace:size=1m"]
    with Container(lazy.name, env={"MODELS": "none"}, options=options) as pod:
        pod.wait_log("podkiln: ready in")
        pod.exec("sh", "-c", "cat /dev/zero >/workspace/full; true")
        pod.exec(PYTHON, "-c", KILL)
        log = pod.wait_log("podkiln: ready again in")
    assert log.count("the log in /workspace/logs cannot be written (No space left on device)") == 1


def test_a_read_only_volume_has_its_log_in_the_container(lazy: Image) -> None:
    options = ["--read-only", "--tmpfs=/run"]
    with Container(lazy.name, env={"MODELS": "none"}, options=options) as pod:
        pod.wait_log("podkiln: ready in")
        assert "Starting server" in pod.read("/run/podkiln/workspace/logs/comfyui.log")
        assert pod.stop() < 10
        assert pod.state()["ExitCode"] == 0


# Ends a process of the pod by the words that its command line begins with.
END = """
import os, pathlib, signal, sys
for cmdline in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try:
        words = cmdline.read_bytes().decode().split("\\0")[:-1]
    except OSError:  # it has ended meanwhile
        continue
    process = int(cmdline.parent.name)
    if sys.argv[1:] == [word for word in words if word in sys.argv[1:]] and process != os.getpid():
        os.kill(process, signal.SIGKILL)
"""


def status_of_login(pod: Container) -> int:
    """Return what the login before ComfyUI answers to who has none; 0 where nobody answers."""
    connection = http.client.HTTPConnection(pod.address, 8188, timeout=5)
    try:
        connection.request("GET", "/system_stats")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_services_that_are_killed_are_said_and_started_again(lazy: Image) -> None:
    env = {"MODELS": "none", "WEB_USER": "me", "WEB_PASSWORD": "secret"}
    with Container(lazy.name, env=env) as pod:
        pod.wait_log("podkiln: ready in")
        pod._until(lambda: status_of_login(pod) == 401, "asks for no login", 20)
        pod.exec(PYTHON, "-c", END, "/opt/podkiln", "services")
        log = pod.wait_log("podkiln: services was killed (signal 9); it is started again in 1 s (1 of 3).")
        assert "ComfyUI has ended" not in log
        time.sleep(1.5)
        pod._until(lambda: status_of_login(pod) == 401, "asks for no login", 20)
        assert "is taken already" not in pod.logs()


def test_where_start_sh_is_not_the_first_process_it_can_be_killed_and_started_again(lazy: Image) -> None:
    """As on vast.ai. The first process here does not even wait for its children."""
    with Container(lazy.name, "infinity", env={"MODELS": "none"}, options=["--entrypoint=sleep"]) as pod:
        start = "nohup /start.sh </dev/null >>/tmp/log 2>&1 &"

        def said(text: str, count: int) -> bool:
            return pod.read("/tmp/log").count(text) >= count

        pod.exec("sh", "-c", start)
        pod._until(lambda: said("podkiln: ready in", 1), "is not ready", 30)
        for count, victims in enumerate((["run"], ["run", "bash"], ["bash"]), start=2):
            for words in (
                ["/opt/podkiln", "run"] if word == "run" else ["bash", "/start.sh"] for word in victims
            ):
                pod.exec(PYTHON, "-c", END, *words)
            if "bash" in victims:
                pod.exec("sh", "-c", start)
            pod._until(lambda: said("podkiln: ready in", count), "is not ready again", 40)  # noqa: B023 - awaited here
        assert not said("is taken by", 1)
        assert not said("running in this pod already", 1)
