"""What a pod fetches while ComfyUI serves, from a hub on this machine, and what cannot go wrong with it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from containers import Container, docker
from fakes.pod import CHUNK, Pod, huggingface, row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from images import Image
    from servers.hub import Hub
    from servers.hub_content import HubFile

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
    """Wait for the end of the fetch, and for ComfyUI; returns fetch.json."""
    container.wait_log("already there, ")
    container.wait_ready()
    return dict(json.loads(container.read("/run/podkiln/fetch.json")))


@pytest.mark.smoke
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


# By model: its file, and what the pod says: which file, why, and what to do.
FAILURES = {
    "missing": ("loras/missing.safetensors", ["is not there (404 from", "correct its source"]),
    "gated": ("vae/gated.safetensors", ["needs a login (401)", "set HF_TOKEN"]),
    "wrong": ("upscale_models/wrong.safetensors", ["sha256"]),
}


def test_fetches_that_fail_are_sentences_and_comfyui_stays(tiny: Image, hub: Hub) -> None:
    with pod(tiny, hub, MODELS=",".join(["present", *FAILURES])) as container:
        told = fetched(container)
        log = container.logs()
        for model, (label, says) in FAILURES.items():
            line = next(line for line in log.splitlines() if f"{model}: {label} " in line)
            assert all(text in line for text in says), line
            assert container.get(f"/models/{label.partition('/')[0]}") == []
        states = {file["file"]: file["state"] for file in told["files"]}
        assert states == {f"checkpoints/{FILE}": "fetched"} | {
            label: "failed" for label, _ in FAILURES.values()
        }
        assert container.get("/models/checkpoints") == [FILE]
        assert "Traceback" not in log


def test_a_token_opens_a_gated_repository_and_is_never_shown(tiny: Image, hub: Hub, canary: str) -> None:
    with pod(tiny, hub, MODELS="gated", HF_TOKEN=canary) as container:
        assert fetched(container)["state"] == "done"
        assert container.get("/models/vae") == ["gated.safetensors"]
        assert canary not in container.logs()
        readable = ["find", "/run/podkiln", "/workspace", "-type", "f", "-perm", "/066"]
        grep = ["-exec", "grep", "-l", canary, "{}", "+"]
        assert container.exec(*readable, *grep, check=False).stdout == ""
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


# --- The fetcher alone, on what only containers have: a volume of the engine's, full and read-only mounts.
# What hubs and disks may do otherwise, tests/unit/pod/ plays with real processes and sockets.

SIZE = 4_000_000
CONNECTIONS = 4
SOCKETS = 96 * 1024  # bytes on their way, which the hub counts as sent and a killed client never read
FETCH = ("/usr/bin/python3", "-I", "-S", "/opt/podkiln", "fetch")
SETTINGS = {
    "PODKILN_ROOT": "/offer",
    "PODKILN_FETCH_CHUNK": str(CHUNK),
    "PODKILN_FETCH_TRIES": "2",
    "PODKILN_FETCH_STALL": "1",
    "FETCH_CONNECTIONS": str(CONNECTIONS),
}


@pytest.fixture
def offer(hub: Hub, tmp_path: Path) -> HubFile:
    """A file of 4 MB, which is model `m` in the models.json that `workshop` mounts."""
    file = hub.add("org/repo", "weights.safetensors", SIZE)
    Pod(tmp_path, hub).offer({"m": [row(file, huggingface(file))]})
    return file


@contextlib.contextmanager
def workshop(
    image: Image, hub: Hub, folder: Path, *options: str, volume: str = "", **env: str
) -> Iterator[Container]:
    """A container of the image in which nothing runs but what a test starts."""
    mounts = {f"{folder}/image": "/offer:ro", **({volume: "/workspace"} if volume else {})}
    env = {"HF_ENDPOINT": hub.url, **SETTINGS, **env}
    idle = ["--entrypoint=/usr/bin/sleep", "--init", *options]
    with Container(image.name, "600", env=env, mounts=mounts, options=idle) as container:
        yield container


def fetch(container: Container, *words: str, **env: str) -> tuple[int, str]:
    """Fetch model `m`; returns the exit code and what was said."""
    done = container.exec(*FETCH, *(words or ("m",)), env=env, check=False)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    return done.returncode, said


@contextlib.contextmanager
def fetching(container: Container) -> Iterator[subprocess.Popen[str]]:
    """Fetch model `m` beside the test; the text of the process is what was said."""
    argv = ["docker", "exec", container.name, *FETCH, "m"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        yield process


def sha256(container: Container, name: str = "weights.safetensors") -> str | None:
    """Return the hash of a published file; None when there is none."""
    done = container.exec("sha256sum", f"/workspace/models/checkpoints/{name}", check=False)
    return done.stdout.split()[0] if done.returncode == 0 else None


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_another_container_takes_over_from_one_that_was_killed(
    tiny: Image, hub: Hub, tmp_path: Path, volume: str, offer: HubFile
) -> None:
    hub.rate = 200_000
    with (
        workshop(tiny, hub, tmp_path, volume=volume) as first,
        workshop(tiny, hub, tmp_path, volume=volume) as second,
        fetching(first),
    ):
        until(lambda: hub.served() > SIZE // 4)
        with fetching(second) as heir:
            time.sleep(1.0)  # it waits by now
            first.kill("KILL")
            hub.rate = 0
            said = heir.communicate(timeout=60)[0]
        assert heir.returncode == 0, said
        assert "is being fetched by another pod on this volume; waiting for it" in said
        assert sha256(second) == offer.sha256
    assert hub.served() <= SIZE + 2 * CONNECTIONS * (CHUNK + SOCKETS)


def test_a_disk_that_fills_up_on_the_way_costs_nothing_that_has_arrived(
    tiny: Image, hub: Hub, tmp_path: Path, offer: HubFile
) -> None:
    hub.rate = 150_000
    with workshop(tiny, hub, tmp_path, "--tmpfs=/workspace:size=6m") as container:
        with fetching(container) as process:
            until(lambda: hub.served() > SIZE // 4)
            container.exec("dd", "if=/dev/zero", "of=/workspace/other", "bs=64k", "count=96", check=False)
            hub.rate = 0
            said = process.communicate(timeout=30)[0]
        assert process.returncode == 1, said
        assert f"checkpoints/{offer.name} does not fit: /workspace is full (No space left on device)" in said
        assert "what has arrived is kept, so make room" in said
        assert sha256(container) is None
        container.exec("rm", "/workspace/other")
        before = hub.served()
        assert fetch(container)[0] == 0
        assert sha256(container) == offer.sha256
        assert hub.served() - before < SIZE


def test_a_read_only_volume_is_one_sentence_and_what_lies_there_is_used(
    tiny: Image, hub: Hub, tmp_path: Path, volume: str, offer: HubFile
) -> None:
    with workshop(tiny, hub, tmp_path, volume=f"{volume}") as container:
        container.exec("mkdir", "/workspace/models")
    with workshop(tiny, hub, tmp_path, f"--volume={volume}:/workspace:ro") as container:
        code, said = fetch(container)
        assert code == 1
        assert (
            f"checkpoints/{offer.name} cannot be written below /workspace/models/checkpoints: "
            "read-only file system; mount the volume writable, or set WORKSPACE to a place that is" in said
        )
    assert hub.served() == 0
    with workshop(tiny, hub, tmp_path, volume=volume) as container:
        assert fetch(container)[0] == 0
    before = hub.served()
    with workshop(tiny, hub, tmp_path, f"--volume={volume}:/workspace:ro") as container:
        assert "0 fetched (0 B), 1 already there" in fetch(container)[1]
    assert hub.served() == before
