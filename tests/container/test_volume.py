"""Pods on volumes of every kind: what users make stays, what is there is found, and nobody waits."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from containers import Container
from node_wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from images import Image

pytestmark = pytest.mark.engine
WORKSPACE = "/workspace"
STAND_IN = "/var/lib/podkiln/workspace"
PROMPT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "made"}},
}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


def pod(
    image: Image, *options: str, at: str = WORKSPACE, volume: Path | None = None, **env: str
) -> Container:
    mounts = {str(volume): at} if volume else {}
    return Container(image.name, env={"MODELS": "none", **env}, mounts=mounts, options=options)


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return inode and bytes of each file that is not our own."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and not {".podkiln", "logs", "__pycache__"} & set(path.parts)
    }


def folder_flags(container: Container) -> dict[str, str]:
    argv = container.get("/system_stats")["system"]["argv"]
    return {word: argv[number + 1] for number, word in enumerate(argv) if word.endswith("-directory")}


def made(container: Container, patience: float = 20.0) -> str:
    """Run a prompt; returns the name of the picture."""
    status, taken = container.post("/prompt", {"prompt": PROMPT})
    assert status == 200
    end = time.monotonic() + patience
    while not (done := container.get(f"/history/{taken['prompt_id']}")):
        assert time.monotonic() < end
        time.sleep(0.1)
    image: dict[str, Any] = done[taken["prompt_id"]]["outputs"]["2"]["images"][0]
    return str(image["filename"])


def test_what_a_pod_makes_is_there_for_the_next_one(lazy: Image, volume: Path) -> None:
    with pod(lazy, volume=volume) as first:
        first.wait_ready()
        name = made(first)
        assert folder_flags(first) == {
            "--output-directory": "/workspace/output",
            "--input-directory": "/workspace/input",
            "--user-directory": "/workspace/user",
            "--temp-directory": "/var/lib/podkiln",
        }
        assert "warning" not in first.logs()
        told = json.loads(first.exec("/start.sh", "--explain").stdout)
        assert told["volume"] == json.loads(first.read("/run/podkiln/decision.json"))["volume"]
    assert (volume / "output" / name).read_bytes()[:4] == b"\x89PNG"
    with pod(lazy, volume=volume) as second:
        second.wait_ready()
        assert second.exec("test", "-f", f"/workspace/output/{name}").returncode == 0
        assert made(second) != name


def test_without_a_volume_it_is_said_how_long_things_last(pods: dict[str, Container]) -> None:
    pods["lazy"].wait_ready()
    log = pods["lazy"].logs()
    assert "No volume is mounted at /workspace, so what ComfyUI saves there ends with this container." in log


def test_what_another_image_left_is_used_where_it_lies(lazy: Image, volume: Path) -> None:
    """The layout of images that install ComfyUI itself on the volume."""
    home = volume / "ComfyUI"
    put(home / "models" / "loras" / "mine.safetensors", "x")
    put(home / "models" / "unet" / "old.safetensors", "x")
    put(home / "output" / "old.png", "x")
    put(home / "input" / "photo.png", "x")
    put(home / "user" / "default" / "workflows" / "w.json", "{}")
    put(home / "custom_nodes" / "node" / "__init__.py", "NODE_CLASS_MAPPINGS = {}")
    put(home / "main.py", "raise SystemExit('the wrong ComfyUI was started')")
    put(home / "folder_paths.py", "raise SystemExit('the wrong ComfyUI was imported')")
    put(volume / "models" / "loras" / "ours.safetensors", "x")
    before = contents(volume)
    with pod(lazy, volume=volume) as container:
        container.wait_ready()
        assert container.get("/models/loras") == ["mine.safetensors", "ours.safetensors"]
        assert container.get("/models/diffusion_models") == ["old.safetensors"]
        assert folder_flags(container)["--user-directory"] == "/workspace/ComfyUI/user"
        name = made(container)
        log = container.logs()
    assert "seconds: /workspace/ComfyUI/custom_nodes/node" in log
    assert (
        "Another image installed ComfyUI in /workspace/ComfyUI: its models, outputs, inputs, settings" in log
    )
    after = contents(volume)
    assert after.keys() - before.keys() == {f"ComfyUI/output/{name}"}
    assert {path: after[path] for path in before} == before, "nothing is moved, copied or changed"


def test_a_serverless_workers_volume_is_found(lazy: Image, volume: Path) -> None:
    put(volume / "models" / "loras" / "mine.safetensors", "x")
    with pod(lazy, at="/runpod-volume", volume=volume) as container:
        container.wait_ready()
        assert container.get("/models/loras") == ["mine.safetensors"]
        name = made(container)
        assert "so the volume at /runpod-volume is used." in container.logs()
    assert (volume / "output" / name).exists()


UNWRITABLE = {
    "read-only": ("--volume={volume}:/workspace:ro", "/workspace is read-only: "),
    "full": ("--tmpfs=/workspace:nr_inodes=1", "/workspace is full: "),
}


@pytest.mark.parametrize("kind", UNWRITABLE)
def test_the_container_stands_in_for_a_volume_that_cannot_be_written(
    lazy: Image, volume: Path, kind: str
) -> None:
    option, says = UNWRITABLE[kind]
    put(volume / "models" / "loras" / "mine.safetensors", "x")
    put(volume / "custom_nodes" / "node" / "__init__.py", "NODE_CLASS_MAPPINGS = {}")
    before = contents(volume)
    with pod(lazy, option.format(volume=volume)) as container:
        container.wait_ready()
        name = made(container)
        assert container.exec("test", "-f", f"{STAND_IN}/output/{name}").returncode == 0
        log = container.logs()
        if kind == "read-only":
            assert container.get("/models/loras") == ["mine.safetensors"]
            assert "seconds: /workspace/custom_nodes/node" in log
    assert f"podkiln: warning: {says}outputs, inputs, settings" in log
    assert f"go to {STAND_IN} and end with this container" in log
    assert contents(volume) == before


def test_what_never_answers_on_a_volume_keeps_nobody_waiting(lazy: Image, volume: Path) -> None:
    """A FIFO is the one file that never answers, and needs no file server that can be stopped."""
    put(volume / "custom_nodes" / "slow" / "__init__.py", "NODE_CLASS_MAPPINGS = {}")
    os.mkfifo(volume / "custom_nodes" / "slow" / "requirements.txt")
    with pod(lazy, volume=volume) as container:
        container.wait_ready()
        log = container.wait_log("podkiln: ready in")
        boot = json.loads(container.read("/run/podkiln/boot.json"))
    assert "slow: requirements.txt is not a plain file" in log
    assert "seconds: /workspace/custom_nodes/slow" in log
    assert boot["spawned"] - boot["started"] < 3


NODES = {
    "fine": ("", "pyyaml>=6\naiohttp\n"),
    "clashes": ("", "pyyaml<6  # which the image must keep\n"),
    "lacks": ("import blendmodes", "blendmodes>=1\n"),
    "hidden.disabled": ("raise SystemExit('loaded')", "pyyaml<6\n"),
}


@pytest.fixture
def nodes(volume: Path, tmp_path: Path) -> dict[str, str]:
    """Put nodes on the volume, and wheels where pip finds them; returns the environment."""
    for name, (code, wants) in NODES.items():
        put(volume / "custom_nodes" / name / "__init__.py", f"{code}\nNODE_CLASS_MAPPINGS = {{}}\n")
        put(volume / "custom_nodes" / name / "requirements.txt", wants)
    shelf = tmp_path / "volume" / "wheels"
    shelf.mkdir()
    wheel(shelf, "blendmodes", "1.0")
    wheel(shelf, "pyyaml", "5.4")
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/workspace/wheels"}


def loaded(log: str) -> dict[str, bool]:
    """Return which nodes of the volume were tried, and whether they loaded."""
    times = log[log.index("Import times for custom nodes:") :].splitlines()
    rows = [line.split("/workspace/custom_nodes/") for line in times if "/workspace/custom_nodes/" in line]
    return {name: "FAILED" not in how for how, name in rows}


def test_nodes_are_checked_before_they_are_loaded(lazy: Image, volume: Path, nodes: dict[str, str]) -> None:
    with pod(lazy, volume=volume, **nodes) as container:
        container.wait_ready()
        log = container.logs()
        assert loaded(log) == {"fine": True, "lacks": False}
        assert "Custom node clashes requires pyyaml<6, and the image has 6.0.3: it is left out" in log
        assert "Custom nodes lack packages and may not load (lacks: blendmodes>=1): " in log
        assert not (volume / ".podkiln" / "python").exists(), "nothing is installed unless asked for"
        refused = container.exec(
            *(
                "bash",
                "-c",
                "mapfile -d '' -t e </run/podkiln/comfyui.env; env \"${e[@]}\" pip install 'pyyaml<6'",
            ),
            check=False,
        )
        assert refused.returncode != 0, "what ComfyUI's Manager does is held to the image's versions"
        assert "conflicting dependencies" in refused.stderr


def test_what_nodes_lack_is_installed_once_and_stays(
    lazy: Image, volume: Path, nodes: dict[str, str]
) -> None:
    asked = {**nodes, "NODE_REQUIREMENTS": "install"}
    with pod(lazy, volume=volume, **asked) as container:
        container.wait_ready()
        log = container.logs()
        assert loaded(log) == {"fine": True, "lacks": True}
        assert "podkiln: installing 1 packages for custom nodes into /workspace/.podkiln/python/" in log
        assert container.exec("pip", "show", "blendmodes", check=False).returncode != 0, "not in the image"
    with pod(lazy, volume=volume, **{**nodes, "PIP_FIND_LINKS": "/nowhere"}) as container:
        container.wait_ready()
        assert loaded(container.logs()) == {"fine": True, "lacks": True}, (
            "later starts need neither pip nor asking"
        )
        assert "installing" not in container.logs()


def test_two_pods_on_one_volume_both_start(lazy: Image, volume: Path) -> None:
    """With the database where newer ComfyUI puts it, in the user directory, the second one ends."""
    newer = {"CONTRACT_ASSETS": "required"}
    with pod(lazy, volume=volume, **newer) as first, pod(lazy, volume=volume, **newer) as second:
        first.wait_ready()
        second.wait_ready()
        assert folder_flags(first) == folder_flags(second)
        assert made(first)
        assert made(second)
    shared = {**newer, "COMFYUI_ARGS": "--database-url sqlite:////workspace/user/comfyui.db"}
    with pod(lazy, volume=volume, **shared) as first:
        first.wait_ready()
        asked = ["/opt/venv/bin/python", "/opt/ComfyUI/main.py", "--cpu", "--quick-test-for-ci"]
        done = first.exec(*asked, "--user-directory=/workspace/user", check=False)
        assert (done.returncode, "ASSETS_STARTUP_FAILED: in_use" in done.stderr) == (1, True)


def test_a_users_own_folders_win(lazy: Image, volume: Path) -> None:
    with pod(lazy, volume=volume, COMFYUI_ARGS="--output-directory /workspace/mine") as container:
        container.wait_ready()
        assert folder_flags(container)["--output-directory"] == "/workspace/mine"
        name = made(container)
    assert (volume / "mine" / name).exists()
