"""Weights baked by the command itself, from a hub on this machine into a real registry and a real engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from acme import BIG, SMALL, bake, describe, pushing, serve
from containers import docker
from fakes.hub import Hub
from images import SUBSTITUTES, SYSTEM_CA, podkiln

from podkiln import oci

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("bootstrap_base")]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as started:
        yield started


@pytest.fixture
def hashes(hub: Hub) -> dict[str, str]:
    """The sha256 of each file that the hub serves."""
    return serve(hub)


def test_weights_go_from_the_hub_to_the_registry_and_not_through_here(
    hub: Hub, hashes: dict[str, str], registry: Callable[[], str], tmp_path: Path
) -> None:
    variant = describe(tmp_path, hashes)
    image = bake(variant, tmp_path / "dist", hub, *pushing(registry()))

    weights = 2 * BIG + 2 * SMALL
    assert image.report["weights"]["fetched_bytes"] == weights
    layers = image.manifest()["layers"]
    assert [layer["mediaType"] for layer in layers[:3]] == [oci.LAYER] * 3
    assert not any(image.blob(layer["digest"]).exists() for layer in layers[:3])
    config = image.config()
    told = [entry for entry in config["history"] if not entry.get("empty_layer")]
    assert len(told) == len(layers) == len(config["rootfs"]["diff_ids"])
    assert told[0]["created_by"].startswith("podkiln bake acme: checkpoints/a.safetensors from huggingface:")

    listed = docker(
        *("run", "--rm", "--entrypoint", "sh", image.by_digest, "-c"),
        "cd /opt/models && sha256sum checkpoints/*",
    ).stdout
    docker("image", "rm", "--force", image.by_digest)
    sums = {line.split()[1]: line.split()[0] for line in listed.splitlines()}
    assert sums == {f"checkpoints/{name}": sha256 for name, sha256 in hashes.items()}


def test_a_second_bake_fetches_and_sends_no_weight_byte(
    hub: Hub, hashes: dict[str, str], registry: Callable[[], str], tmp_path: Path
) -> None:
    variant = describe(tmp_path, hashes)
    options = pushing(registry())
    first = bake(variant, tmp_path / "one", hub, *options)
    served = hub.served()
    remembered = json.loads((tmp_path / "bakes.locks" / "layers.json").read_text())
    assert len(remembered["layers"]) == 3

    second = bake(variant, tmp_path / "two", hub, *options)
    assert hub.served() == served
    assert second.digest == first.digest
    assert second.report["weights"] == {
        "fetched_bytes": 0,
        "uploaded_bytes": 0,
        "mounted_bytes": 0,
        "existing_bytes": first.report["weights"]["uploaded_bytes"],
    }


def test_what_is_baked_onto_disk_is_what_is_pushed(
    hub: Hub, hashes: dict[str, str], registry: Callable[[], str], tmp_path: Path
) -> None:
    pushed = bake(describe(tmp_path / "p", hashes), tmp_path / "p" / "dist", hub, *pushing(registry()))
    here = bake(describe(tmp_path / "h", hashes), tmp_path / "h" / "dist", hub)
    assert here.digest == pushed.digest
    assert all(here.blob(layer["digest"]).exists() for layer in here.manifest()["layers"])


def test_a_file_that_is_not_the_locked_one_is_never_committed(
    hub: Hub, hashes: dict[str, str], registry: Callable[[], str], tmp_path: Path
) -> None:
    wrong = "0" * 64
    variant = describe(tmp_path, {**hashes, "b.safetensors": wrong})
    done = podkiln(
        *("--variant", variant, *SUBSTITUTES, "--out", tmp_path / "dist", "--ca-bundle", SYSTEM_CA),
        *pushing(registry()),
        env={"HF_ENDPOINT": hub.url},
    )
    assert done.returncode == 12
    said = next(line for line in done.stderr.splitlines() if line.startswith("podkiln: "))
    assert "b.safetensors" in said
    assert wrong in said
    assert hashes["b.safetensors"] in said
    assert not (tmp_path / "bakes.locks").exists()
