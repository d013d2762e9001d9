"""`verify` by the command itself, against a real registry with weights that the command baked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import registries
from baked_variant import bake, describe, pushing, serve
from images import podkiln
from servers.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from images import Image

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("bootstrap_base")]


@dataclass(frozen=True)
class Pushed:
    """An image at a registry, whose storage lies in a folder here."""

    variant: Path
    image: Image
    storage: Path

    def blob(self, digest: str) -> Path:
        """Return the file in which the registry keeps a blob (distribution, registry/storage/paths.go)."""
        digits = digest.removeprefix("sha256:")
        blobs = self.storage / "data" / "docker" / "registry" / "v2" / "blobs" / "sha256"
        return blobs / digits[:2] / digits / "data"

    def verify(self, *options: str) -> dict[str, Any]:
        """Return what `verify --json` says. The image stands on substitutes, so it is never right."""
        done = podkiln("verify", self.image.name, "--variant", self.variant, "--json", *options)
        assert done.returncode == 13, done.stderr
        verdict = json.loads(done.stdout)
        assert (verdict["schema"], verdict["image"], verdict["ok"]) == (1, self.image.name, False)
        assert verdict["digest"] == self.image.digest
        assert verdict["findings"][0] in done.stderr
        return dict(verdict)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    folder = tmp_path_factory.mktemp("verify")
    with Hub() as hub, registries.serve(folder / "registry") as host:
        variant = describe(folder, serve(hub))
        image = bake(variant, folder / "dist", hub, *pushing(host))
        yield Pushed(variant, image, folder / "registry")


def substitutes(findings: list[str]) -> list[str]:
    """Return what is named as substituted; all findings must be of that kind."""
    lead = "It was built with a substitute for "
    assert [finding for finding in findings if not finding.startswith(lead)] == []
    return [finding.removeprefix(lead).partition(":")[0] for finding in findings]


@pytest.mark.smoke
def test_an_image_with_substitutes_is_never_right_and_else_as_locked(pushed: Pushed) -> None:
    for options in ((), ("--deep",)):
        named = substitutes(pushed.verify(*options)["findings"])
        assert sorted(named) == ["base", "comfyui", "nodes", "requirements"]


def test_weights_that_were_not_asked_for_are_found(pushed: Pushed) -> None:
    found = pushed.verify("--no-weights")["findings"]
    assert len([finding for finding in found if "holds weights of acme" in finding]) == 3


def test_a_byte_that_changed_in_the_registrys_storage_is_found_by_deep_alone(pushed: Pushed) -> None:
    layer = pushed.image.manifest()["layers"][0]
    with pushed.blob(layer["digest"]).open("r+b") as file:
        file.seek(layer["size"] // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    substitutes(pushed.verify()["findings"])
    found = pushed.verify("--deep")["findings"]
    others = [finding for finding in found if "substitute" not in finding]
    assert len(others) == 2
    assert f"not {layer['digest']}" in others[0]
    assert others[1].startswith("opt/models/checkpoints/a.safetensors has the sha256 ")
