"""Pods of every variant on a machine without a GPU: what they serve, and how they end."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from containers import Container

if TYPE_CHECKING:
    from images import Image

pytestmark = pytest.mark.engine
PYTHON = "/usr/bin/python3"
# On this machine half a second; on a busy one of CI with two cores never this much.
SLOW_START = 5.0
SLOW_BOOT = 30.0


def test_a_pod_serves_with_the_flags_that_were_foretold(
    pod: Container, foretold: dict[str, list[str]]
) -> None:
    stats = pod.get("/system_stats")
    variant = pod.inspect()["Config"]["Labels"]["io.podkiln.variant"]
    assert stats["system"]["argv"] == ["main.py", *foretold[variant]]
    assert "--cpu" in foretold[variant]
    assert [device["type"] for device in stats["devices"]] == ["cpu"]


def test_a_pod_says_why(pod: Container) -> None:
    log = pod.logs()
    assert "podkiln: There is no GPU here (nvidia-smi is not installed" in log
    assert "--cpu because without a GPU ComfyUI only starts on the CPU" in log
    assert "Traceback" not in log


def test_explain_says_the_same_and_starts_nothing(pod: Container) -> None:
    before = pod.processes()
    told = json.loads(pod.exec("/start.sh", "--explain").stdout)
    decided = json.loads(pod.read("/run/podkiln/decision.json"))
    assert told == decided
    # Docker's look at the pod's health may stand among them for a moment.
    end = time.monotonic() + 10
    while started := pod.processes().items() - before.items():
        assert time.monotonic() < end, started
        time.sleep(0.2)


def test_a_prompt_is_taken(pod: Container) -> None:
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "test"}},
    }
    status, answer = pod.post("/prompt", {"prompt": prompt})
    assert status == 200
    assert answer["prompt_id"]


def test_the_manifest_in_the_image_says_what_it_holds(pod: Container) -> None:
    manifest = json.loads(pod.read("/opt/podkiln/manifest.json"))
    labels = pod.inspect()["Config"]["Labels"]
    assert manifest["variant"] == labels["io.podkiln.variant"]
    assert manifest["lock"] == labels["io.podkiln.lock"]
    assert set(manifest["substituted"]) == {"base", "comfyui", "requirements", "nodes"}
    assert manifest["baked"] == []


def test_pid_1_is_an_init_and_start_sh_its_child(pod: Container) -> None:
    assert pod.read("/proc/1/cmdline").split("\0")[:3] == ["/usr/bin/tini", "--", "/start.sh"]


def test_nothing_in_the_image_belongs_to_a_builder(pod: Container) -> None:
    """Root owns all of it, and nobody else may write."""
    wrong = ["(", "-not", "-uid", "0", "-o", "-perm", "/022", ")"]
    assert pod.exec("find", "/opt", "/start.sh", "-not", "-type", "l", *wrong).stdout == ""


def test_the_boot_is_timed(pod: Container) -> None:
    """From the container's start to the first answer, and the share of start.sh in it."""
    pod.wait_log("podkiln: ready in")
    boot = json.loads(pod.read("/run/podkiln/boot.json"))
    seconds = boot["seconds"]
    assert boot["ready"] >= boot["spawned"] >= boot["started"]
    assert 0 <= seconds["gpu"] + seconds["flags"] < seconds["start"] < SLOW_START
    assert seconds["start"] < seconds["ready"] < SLOW_BOOT
    assert seconds["ready"] == pytest.approx(boot["ready"] - boot["started"], abs=0.01)


def test_docker_finds_a_pod_healthy(pods: dict[str, Container]) -> None:
    """Docker asks for the first time after 15 s."""
    pods["lazy"].wait_ready()
    end = time.monotonic() + 60
    while (health := pods["lazy"].state()["Health"])["Status"] != "healthy":
        assert time.monotonic() < end, health
        time.sleep(0.5)


def test_an_unhealthy_pod_says_why(lazy: Image) -> None:
    env = {"CONTRACT_BOOT_SECONDS": "30", "MODELS": "none"}
    with Container(lazy.name, env=env) as pod:
        pod.wait_log("ComfyUI's arguments")
        asked = pod.exec(PYTHON, "-I", "-S", "/opt/podkiln", "health", check=False)
        assert asked.returncode == 1
        assert asked.stderr.startswith("ComfyUI does not answer on port 18188: ")


@pytest.mark.parametrize("signal", ["TERM", "INT"])
def test_a_signal_ends_a_pod_cleanly(lazy: Image, signal: str) -> None:
    """ComfyUI gets the SIGINT that it ends cleanly on, and the pod ends with 0, before SIGKILL."""
    with Container(lazy.name, env={"MODELS": "none"}) as pod:
        pod.wait_ready()
        begun = time.monotonic()
        pod.kill(signal)
        assert pod.wait_exit(10) == 0
        assert time.monotonic() - begun < 10
        assert "Stopped server" in pod.logs()


@pytest.mark.smoke
def test_docker_stop_is_quick_and_leaves_no_zombie(lazy: Image) -> None:
    with Container(lazy.name, env={"MODELS": "none"}) as pod:
        pod.wait_ready()
        # One that ends while it is looked at has no status any more.
        states = pod.exec("sh", "-c", "cat /proc/[0-9]*/status 2>/dev/null || true").stdout
        assert "zombie" not in states
        assert pod.stop() < 10
        assert pod.state()["ExitCode"] == 0


def test_a_stop_in_the_middle_of_the_boot_is_quick_too(lazy: Image) -> None:
    with Container(lazy.name, env={"CONTRACT_BOOT_SECONDS": "60", "MODELS": "none"}) as pod:
        pod.wait_log("ComfyUI version")
        assert pod.stop() < 10


def test_another_port_is_served_and_watched(lazy: Image) -> None:
    with Container(lazy.name, env={"COMFYUI_PORT": "9001", "MODELS": "none"}) as pod:
        pod.wait_log("podkiln: ready in")
        assert ":19001" in pod.logs()  # where ComfyUI listens, behind the door
        assert pod.exec(PYTHON, "-I", "-S", "/opt/podkiln", "health").returncode == 0


def test_a_pod_whose_volume_cannot_be_written_serves_all_the_same(lazy: Image) -> None:
    options = ["--tmpfs", "/run", "--read-only"]
    with Container(lazy.name, env={"MODELS": "none"}, options=options) as pod:
        pod.wait_ready()
        assert "/workspace is read-only" in pod.logs()


# Variable, value, exit code, what the sentence holds: a few of each kind, the tables are unit tests.
REFUSALS = [
    ("COMFYUI_ARGS", "--lowvarm", 64, "did you mean --lowvram?"),
    ("COMFYUI_ARGS", "--lowvram --novram", 64, "exclude each other"),
    ("COMFYUI_ARGS", "--reserve-vram", 64, "needs a number"),
    ("COMFYUI_ARGS", "--reserve-vram 'x", 64, "quotation mark"),
    ("COMFYUI_ARGS", "--novr", 64, "write --novram"),
    ("COMFYUI_PORT", "80a", 78, "COMFYUI_PORT='80a' is not a valid port"),
    ("PORT_HEALTH", "soon", 78, "PORT_HEALTH='soon' is not a valid port"),
    ("GPU_TIER", "consumr", 78, "Did you mean consumer?"),
    ("GPU_MEMORY_MODE", "fast", 78, "GPU_MEMORY_MODE='fast' is not one of"),
    ("ENABLE_SDXL_BASE", "maybe", 78, "neither yes nor no"),
    ("MODELS", "sdxl-bse", 78, "did you mean sdxl-base?"),
    ("WORKSPACE", "relative", 78, "is not an absolute path"),
    ("PODKILN_NVIDIA_SMI_TIMEOUT", "soon", 78, "not a number of seconds"),
]


@pytest.mark.parametrize(
    ("variable", "value", "code", "says"), REFUSALS, ids=[f"{r[0]}={r[1]}" for r in REFUSALS]
)
def test_nonsense_is_refused_in_one_sentence(
    pods: dict[str, Container], variable: str, value: str, code: int, says: str
) -> None:
    done = pods["lazy"].exec("/start.sh", env={variable: value, "PODKILN_RUN": "/tmp/refused"}, check=False)
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("podkiln: ")


def test_the_refusal_is_the_containers_exit_code(lazy: Image) -> None:
    with Container(lazy.name, env={"COMFYUI_ARGS": "--lowvarm"}) as pod:
        assert pod.wait_exit() == 64
        assert pod.logs().count("\n") == 1


def test_dead_flags_of_old_guides_are_dropped_and_the_pod_boots(lazy: Image) -> None:
    env = {
        "COMFYUI_ARGS": "--medvram --cpu-text-encoder --normalvram --preview-method latent2rgb",
        "MODELS": "none",
    }
    with Container(lazy.name, env=env) as pod:
        argv = pod.wait_ready()["system"]["argv"]
        log = pod.logs()
    assert argv[-2:] == ["--preview-method", "latent2rgb"]
    assert "--medvram" not in argv
    for flag in ("--medvram", "--cpu-text-encoder", "--normalvram"):
        assert f"COMFYUI_ARGS: {flag} is dropped: " in log


def test_start_sh_takes_no_arguments(pods: dict[str, Container]) -> None:
    done = pods["lazy"].exec("/start.sh", "--lowvram", check=False)
    assert done.returncode == 64
    assert "ComfyUI's own go into COMFYUI_ARGS" in done.stderr
