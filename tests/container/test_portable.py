"""Weights baked by plain Docker, without podkiln: the target `baked` of a rendered context."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from containers import docker
from images import COMFYUI, REQUIREMENTS, SYSTEM_CA, podkiln

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from servers.hub import Hub

    from podkiln.build.base_image import BaseLayout

# `built` has made all layers below: what is tested here costs a few seconds.
pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("built")]

TAG = "podkiln-test-portable"
HEAD = """
extends: lazy
title: Portable
description: A model of each kind.
models: {offer: [], bake: [open, shut, other]}
nodes: []
define:
"""
MODEL = """
  {name}:
    title: {name}
    summary: One file.
    gated: {gated}
    licence: {{id: MIT, commercial: true, bake: "yes"}}
    tiers: [consumer]
    needs: {{vram_gb: 1, ram_gb: 1}}
    files: [{{{source}, folder: {folder}, size: 262144, sha256: {sha256}}}]
"""
SOURCES = {
    "open": ("huggingface: acme/open, path: open.safetensors", "checkpoints"),
    "shut": ("huggingface: acme/shut, path: shut.safetensors", "vae"),
    "other": ("civitai: {model: 1, version: 7}, name: other.safetensors", "loras/mine"),
}
WRONG = "f" * 64


@pytest.fixture
def hashes(hub: Hub, canary: str) -> dict[str, str]:
    """The sha256 of each model's one file, which the hub serves."""
    files = {
        name: hub.add(f"acme/{name}", f"{name}.safetensors", 262144, seed=seed)
        for seed, name in enumerate(SOURCES)
    }
    hub.gate("acme/shut", canary)
    hub.add_civitai(7, "other.safetensors", files["other"].content)
    return {name: file.sha256 for name, file in files.items()}


@pytest.fixture
def tag() -> Iterator[str]:
    yield TAG
    docker("image", "rm", "--force", TAG, check=False)


def build(
    folder: Path, hashes: Mapping[str, str], hub: Hub, base: BaseLayout, canary: str
) -> subprocess.CompletedProcess[str]:
    """Render a variant that bakes these files, and build it as somebody does who has not got podkiln."""
    models = [
        MODEL.format(
            name=name, gated=str(name == "shut").lower(), source=source, folder=place, sha256=hashes[name]
        )
        for name, (source, place) in SOURCES.items()
    ]
    variant = folder / "portable.yaml"
    variant.write_text(HEAD + "".join(models))
    rendered = podkiln("render", "--variant", variant, "--out", folder / "dist")
    assert rendered.returncode == 0, rendered.stderr
    (folder / "token").write_text(f"{canary}\n")
    (folder / "ca").mkdir()
    shutil.copy(SYSTEM_CA, folder / "ca" / "ca.pem")
    return docker(
        *("buildx", "build", "--target=baked", "--load", f"--tag={TAG}", "--progress=plain"),
        f"--build-context=base=oci-layout://{base.path}@{base.digest}",
        *(f"--build-context=comfyui={COMFYUI}", f"--build-context=requirements={REQUIREMENTS}"),
        f"--build-context=ca={folder / 'ca'}",
        *(f"--build-arg=HF_ENDPOINT={hub.url}", f"--build-arg=CIVITAI_ENDPOINT={hub.url}"),
        *(f"--secret=id=ca,src={SYSTEM_CA}", f"--secret=id=hf_token,src={folder / 'token'}"),
        str(folder / "dist" / "portable"),
        check=False,
    )


def test_plain_docker_bakes_the_same_files(
    tag: str, hub: Hub, hashes: dict[str, str], bootstrap_base: BaseLayout, canary: str, tmp_path: Path
) -> None:
    done = build(tmp_path, hashes, hub, bootstrap_base, canary)
    assert done.returncode == 0, done.stderr[-3000:]
    sums = inside(tag, "find /opt/models -type f -exec sha256sum {} +")
    assert sorted(sums) == sorted(
        f"{hashes[name]}  /opt/models/{folder}/{name}.safetensors" for name, (_, folder) in SOURCES.items()
    )
    modes = inside(tag, "find /opt/models -printf '%y %m %U:%G\\n'")
    assert set(modes) == {"d 755 0:0", "f 644 0:0"}
    assert inside(tag, "find /opt -name '.podkiln*'; ls -A /tmp") == []
    history = docker("history", "--no-trunc", "--format={{.CreatedBy}}", tag).stdout
    assert hub.url in history
    assert canary not in history + done.stderr


def inside(tag: str, script: str) -> list[str]:
    """Return the lines that a shell in the image prints."""
    return docker("run", "--rm", "--entrypoint=sh", tag, "-c", script).stdout.splitlines()


@pytest.mark.parametrize(
    ("name", "says"),
    [("open", "digest mismatch"), ("other", f"sha256:{WRONG} is listed")],
    ids=["ADD", "fetch"],
)
def test_other_bytes_than_those_locked_fail_the_build(
    name: str,
    says: str,
    hub: Hub,
    hashes: dict[str, str],
    bootstrap_base: BaseLayout,
    canary: str,
    tmp_path: Path,
) -> None:
    done = build(tmp_path, {**hashes, name: WRONG}, hub, bootstrap_base, canary)
    assert done.returncode != 0
    assert says in done.stderr
