"""Files that somebody names, in real pods: at the boot, by hand while ComfyUI serves, and without a hub."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from containers import Container, docker
from servers.hub_content import tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images import Image
    from servers.hub import Hub

pytestmark = pytest.mark.engine
LORA = ("lora_unet_a.lora_up.weight", "lora_unet_a.lora_down.weight")
WHOLE = ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight")
WISHES = {
    "LORAS": "urn:air:sdxl:lora:civitai:11@22,loras/own/style.safetensors=hf:org/repo/lora.safetensors",
    "MODELS": "https://huggingface.co/org/repo/blob/main/sub/whole.safetensors",
}


@pytest.fixture
def volume(docker_engine: str) -> Iterator[str]:
    """A volume that outlives its pods."""
    name = docker("volume", "create").stdout.strip()
    yield name
    docker("volume", "rm", "--force", name)


@pytest.fixture
def stocked(hub: Hub) -> Hub:
    """A hub with what WISHES names, and a LoRA for later."""
    hub.add_civitai(22, "add-detail.safetensors", tensors(*LORA), type="LORA")
    hub.add_civitai(44, "later.safetensors", tensors(*LORA, seed=1), type="LORA")
    hub.add("org/repo", "lora.safetensors", tensors(*LORA, seed=2))
    hub.add("org/repo", "sub/whole.safetensors", tensors(*WHOLE))
    return hub


def environment(hub: Hub, **more: str) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "CIVITAI_ENDPOINT": hub.url, **more}


def fetched(container: Container) -> dict[str, Any]:
    """Wait for the end of the boot's fetch; returns fetch.json."""
    container.wait_log("already there, ")
    return dict(json.loads(container.read("/run/podkiln/fetch.json")))


def listed(container: Container, folder: str) -> list[str]:
    return [str(name) for name in container.get(f"/models/{folder}")]


def test_what_is_named_comes_into_its_folder_at_the_boot_and_by_hand(
    tiny: Image, stocked: Hub, canary: str
) -> None:
    with Container(tiny.name, env=environment(stocked, CIVITAI_TOKEN=canary, **WISHES)) as pod:
        assert fetched(pod)["state"] == "done"
        pod.wait_ready()
        loras = ["add-detail.safetensors", "own/style.safetensors"]
        assert listed(pod, "loras") == loras
        assert listed(pod, "checkpoints") == ["whole.safetensors"]

        explained = json.loads(pod.exec("/start.sh", "--explain").stdout)
        assert [
            (wish["source_variable"], wish["ref"], wish["folder"]) for wish in explained["requested_files"]
        ] == [
            ("MODELS", "hf:org/repo@main/sub/whole.safetensors", None),
            ("LORAS", "civitai:11@22", "loras"),
            ("LORAS", "hf:org/repo@main/lora.safetensors", "loras/own"),
        ]

        # ComfyUI lists what comes later without a restart; a login as bare as sshd's is enough.
        bare = ("env", "-i", "/usr/local/bin/podkiln-fetch")
        said = pod.exec(*bare, "https://civitai.com/models/22/later?modelVersionId=44").stderr
        assert "loras/later.safetensors: fetched and checked" in said
        assert listed(pod, "loras") == [*loras[:1], "later.safetensors", *loras[1:]]
        assert "100 %" in pod.exec("podkiln-fetch", "--status").stdout
        assert "civitai:MODEL@VERSION" in pod.exec("podkiln-fetch", "--help").stdout

        refused = pod.exec("podkiln-fetch", "civitai:44", check=False)
        assert (refused.returncode, refused.stderr.count("\n")) == (64, 1)
        assert "could be a model or a version" in refused.stderr
        assert "Traceback" not in pod.logs()
        assert canary not in pod.logs()
        told = ("/run/podkiln/fetch.json", "/run/podkiln/decision.json", "/workspace")
        assert pod.exec("grep", "-rl", canary, *told, check=False).stdout == ""
    assert {
        hit.authorization for hit in stocked.hits if "civitai" not in hit.path and hit.where == "cdn"
    } == {None}


def test_the_second_boot_needs_no_hub(tiny: Image, stocked: Hub, volume: str) -> None:
    mounts = {volume: "/workspace"}
    with Container(tiny.name, env=environment(stocked, **WISHES), mounts=mounts) as first:
        assert fetched(first)["state"] == "done"
    stocked.close()
    with Container(tiny.name, env=environment(stocked, **WISHES), mounts=mounts) as second:
        assert [file["state"] for file in fetched(second)["files"]] == ["present"] * 3
        second.wait_ready()
        assert listed(second, "loras") == ["add-detail.safetensors", "own/style.safetensors"]


# Variable, value, and what the sentence holds; the tables are unit tests.
REFUSALS = [
    ("LORAS", "civitai:368189", "LORAS: 'civitai:368189' could be a model or a version"),
    ("LORAS", "add-detail:0.8", "LORAS: 'add-detail:0.8' ends in a weight"),
    ("LORAS", "vae=civitai:1@2", "LORAS only takes LoRAs: put it into MODELS"),
    ("MODELS", "lora=civitai:1@2", "which ComfyUI does not read: did you mean loras?"),
    ("MODELS", "https://me:secret@files.test/a?t=secret", "MODELS: 'https://…@files.test/a?…' holds a login"),
    ("MODELS", "https://files.test/a.safetensors", "has no sha256, so nothing vouches for the file"),
]


@pytest.mark.parametrize(
    ("variable", "value", "says"), REFUSALS, ids=[f"{row[0]}={row[1]}" for row in REFUSALS]
)
def test_a_malformed_word_ends_the_boot_in_one_sentence(
    pods: dict[str, Container], variable: str, value: str, says: str
) -> None:
    refused = {variable: value, "PODKILN_RUN": "/tmp/refused"}
    done = pods["lazy"].exec("/start.sh", env=refused, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("podkiln: ")
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr
    assert "secret" not in done.stderr
