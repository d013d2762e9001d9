"""What a pod fetches while ComfyUI serves, from a hub on this machine."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from containers import Container, docker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.hub import Hub
    from images import Image

pytestmark = pytest.mark.engine
FILE = "present.safetensors"


@pytest.fixture
def volume(docker_engine: str) -> Iterator[str]:
    """A volume that outlives its pods."""
    name = docker("volume", "create").stdout.strip()
    yield name
    docker("volume", "rm", "--force", name)


@contextlib.contextmanager
def pod(image: Image, hub: Hub, volume: str | None = None, **env: str) -> Iterator[Container]:
    """A pod whose hub is ours."""
    mounts = {volume: "/workspace"} if volume else {}
    with Container(image.name, env={"HF_ENDPOINT": hub.url, **env}, mounts=mounts) as container:
        yield container


def fetched(container: Container) -> dict[str, Any]:
    """Wait for the end of the fetch; returns fetch.json."""
    container.wait_log("already there, ")
    return dict(json.loads(container.read("/run/podkiln/fetch.json")))


def test_a_model_appears_while_comfyui_serves(tiny: Image, hub: Hub) -> None:
    """ComfyUI is up before the file is, and lists it without a restart."""
    hub.rate = 64 << 10  # four seconds for the file
    with pod(tiny, hub, ENABLE_PRESENT="true") as container:
        container.wait_ready()
        assert container.get("/models/checkpoints") == []
        assert fetched(container)["state"] == "done"
        assert container.get("/models/checkpoints") == [FILE]
        assert container.get("/object_info/CheckpointLoaderSimple")["CheckpointLoaderSimple"]["input"][
            "required"
        ]["ckpt_name"][0] == [FILE]
        assert container.exec("ls", f"/workspace/models/checkpoints/{FILE}").returncode == 0
        assert "Traceback" not in container.logs()


def test_nothing_is_fetched_unless_asked_for(tiny: Image, hub: Hub) -> None:
    with pod(tiny, hub) as container:
        fetched(container)
        assert hub.hits == []


def test_a_second_start_fetches_nothing(tiny: Image, hub: Hub, volume: str) -> None:
    """The volume keeps the file; a new pod on it looks and is content."""
    with pod(tiny, hub, volume, MODELS="present") as first:
        assert fetched(first)["state"] == "done"
    served = hub.served()
    assert served >= 262144
    with pod(tiny, hub, volume, MODELS="present") as second:
        assert [file["state"] for file in fetched(second)["files"]] == ["present"]
        assert second.get("/models/checkpoints") == [FILE]
    assert hub.served() == served


def test_a_start_after_a_kill_goes_on_where_it_was(tiny: Image, hub: Hub, volume: str) -> None:
    slowly = {"MODELS": "present", "PODKILN_FETCH_CHUNK": "32768", "FETCH_CONNECTIONS": "1"}
    hub.rate = 16 << 10
    with pod(tiny, hub, volume, **slowly) as first:
        first.wait_log("fetching")
        first.wait_ready()
        first.exec("sleep", "3")
        assert first.get("/models/checkpoints") == []
        first.kill("KILL")
    before = hub.served(FILE)
    assert before > 0
    hub.rate = 0
    with pod(tiny, hub, volume, **slowly) as second:
        assert fetched(second)["state"] == "done"
        assert second.get("/models/checkpoints") == [FILE]
    assert hub.served(FILE) - before < 262144


# Model, folder, and what the pod says: which file, why, and what to do.
FAILURES = [
    ("missing", "loras/missing.safetensors", ["is not there (404 from", "correct its source"]),
    ("gated", "vae/gated.safetensors", ["needs a login (401)", "set HF_TOKEN"]),
    ("wrong", "upscale_models/wrong.safetensors", ["sha256"]),
]


@pytest.mark.parametrize(("model", "label", "says"), FAILURES, ids=[row[0] for row in FAILURES])
def test_a_fetch_that_fails_is_a_sentence_and_comfyui_stays(
    tiny: Image, hub: Hub, model: str, label: str, says: list[str]
) -> None:
    with pod(tiny, hub, MODELS=f"present,{model}") as container:
        told = fetched(container)
        container.wait_ready()
        folder = label.partition("/")[0]
        states = {file["file"]: file["state"] for file in told["files"]}
        line = next(line for line in container.logs().splitlines() if f"{model}: {label} " in line)
        assert all(text in line for text in says), line
        assert states == {f"checkpoints/{FILE}": "fetched", label: "failed"}
        assert container.get(f"/models/{folder}") == []
        assert container.get("/models/checkpoints") == [FILE]
        assert "Traceback" not in container.logs()


def test_a_token_opens_a_gated_repository_and_is_never_shown(tiny: Image, hub: Hub, canary: str) -> None:
    with pod(tiny, hub, MODELS="gated", HF_TOKEN=canary) as container:
        assert fetched(container)["state"] == "done"
        assert container.get("/models/vae") == ["gated.safetensors"]
        assert canary not in container.logs()
        assert container.exec("grep", "-rl", canary, "/run/podkiln", "/workspace", check=False).stdout == ""
    assert not any(hit.authorization for hit in hub.hits if hit.where == "cdn")


def test_models_baked_and_on_the_volume_are_listed_and_not_fetched(
    tiny: Image, hub: Hub, tmp_path: Path
) -> None:
    """/opt/models: the image's own. /runpod-volume/models: the volume as a serverless worker sees it."""
    image, volume = tmp_path / "image", tmp_path / "volume"
    for top, path in ((image, f"checkpoints/{FILE}"), (volume, "models/loras/own.safetensors")):
        (top / path).parent.mkdir(parents=True)
        (top / path).write_bytes(b"own")
    content = hub.repositories["podkiln-tests/present"]
    file = next(iter(content.commits[content.head].values()))
    (image / "checkpoints" / FILE).write_bytes(file.content)
    mounts = {str(image): "/opt/models:ro", str(volume): "/runpod-volume:ro"}
    with Container(tiny.name, env={"HF_ENDPOINT": hub.url, "MODELS": "present"}, mounts=mounts) as container:
        states = [row["state"] for row in fetched(container)["files"]]
        container.wait_ready()
        assert states == ["present"]
        assert container.get("/models/checkpoints") == [FILE]
        assert container.get("/models/loras") == ["own.safetensors"]
    assert hub.served() == 0


def test_the_fetch_can_be_watched(tiny: Image, hub: Hub) -> None:
    with pod(tiny, hub, MODELS="present") as container:
        fetched(container)
        status = container.exec("/usr/bin/python3", "-I", "-S", "/opt/podkiln", "fetch", "--status").stdout
    assert "fetched" in status
    assert "100 %" in status
