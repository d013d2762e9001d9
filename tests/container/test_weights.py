"""Weights baked into a real registry, in bounded memory, and seen by a real engine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import registries
import tiny_image
from hub_weights import access, weight
from servers.hub import Hub

from podkiln.oci import layout, spec
from podkiln.oci.reference import Reference
from podkiln.plan.weight_layers import bundles
from podkiln.registry import Repository, pull_manifest, push
from podkiln.weights.assemble import WeightLayer, assemble, store
from podkiln.weights.bake import bake
from podkiln.weights.sink import RegistrySink

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).resolve().parents[1]
MIB = 1 << 20
MOST_RSS = 200 << 10  # KiB


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with registries.serve(tmp_path / "registry") as host:
        yield host


@contextlib.contextmanager
def hub_process(**files: int) -> Iterator[tuple[dict[str, str], list[dict[str, Any]]]]:
    """Serve files of given sizes from another process; yield the environment to find them, and weights."""
    generate = [f"--generate=org/repo/{name}.safetensors={size}" for name, size in files.items()]
    argv = [sys.executable, str(TESTS / "servers" / "hub.py"), *generate]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        told = json.loads(process.stdout.readline())
        rows = [
            {
                "model": name,
                "destination": name.rpartition("/")[2],
                "size": facts["size"],
                "sha256": facts["sha256"],
                "source": f"huggingface:{name}",
                "revision": facts["revision"],
                "origin": {
                    "kind": "huggingface",
                    "repo": "org/repo",
                    "revision": facts["revision"],
                    "path": name.rpartition("/")[2],
                },
            }
            for name, facts in told["files"].items()
        ]
        try:
            yield {**os.environ, "HF_ENDPOINT": told["url"]}, rows
        finally:
            process.terminate()


def bake_process(
    environment: dict[str, str], rows: list[dict[str, Any]], target: str
) -> subprocess.Popen[str]:
    argv = [sys.executable, str(TESTS / "bake_process.py"), target, json.dumps(rows)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment)


def sessions(storage: Path) -> list[Path]:
    return [file for file in storage.glob("**/_uploads/*/data") if file.is_file()]


def test_memory_is_bounded_whatever_the_size(registry: str) -> None:
    """Three files of 300 MiB in all, at once."""
    with hub_process(a=140 * MIB, b=90 * MIB, c=70 * MIB) as (environment, rows):
        with bake_process(environment, rows, f"{registry}/you/app") as process:
            out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        told = json.loads(out)
        assert sum(each["fetched"] for each in told["layers"]) == 300 * MIB
        assert told["rss"] < MOST_RSS


def test_an_engine_finds_the_weights_in_the_image(registry: str, tmp_path: Path) -> None:
    with Hub() as hub:
        files = [hub.add("org/repo", f"{n}.safetensors", 5 * MIB + n, seed=n) for n in range(3)]
        described = [weight(file, model=f"m{number // 2}") for number, file in enumerate(files)]
        groups = bundles(described)
        runtime = layout.read(tiny_image.build(tmp_path))
        name = Reference.parse(f"{registry}/you/app:v1")
        with Repository(name, push=True) as repository:
            baked = bake(groups, RegistrySink(repository), access(hub))
    image = assemble(
        runtime.manifest, runtime.config, [WeightLayer(each.bundle, each.blob) for each in baked]
    )
    report = push(store(image, runtime.path, index=False), name)
    assert [blob.how for blob in report.layers[:2]] == ["existing", "existing"]
    assert pull_manifest(name)[1] == image.manifest_bytes
    assert sessions(tmp_path / "registry") == []
    try:
        said = docker("run", "--name", "podkiln-test-weights", str(name))
        assert said.strip() == tiny_image.SAYS
        for file in files:
            path = f"podkiln-test-weights:/opt/models/checkpoints/{file.name}"
            docker("cp", path, str(tmp_path / file.name))
            assert hashlib.sha256((tmp_path / file.name).read_bytes()).hexdigest() == file.sha256
        shown = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", str(name))
        assert all(file.sha256 in shown for file in files)
    finally:
        docker("rm", "--force", "podkiln-test-weights")
        docker("rmi", "--force", str(name))


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_bakes_make_one_manifest(tmp_path: Path) -> None:
    digests: set[spec.Digest] = set()
    runtime = layout.read(tiny_image.build(tmp_path / "runtime"))
    for number in range(2):
        with Hub() as hub, registries.serve(tmp_path / str(number)) as host:
            file = hub.add("org/repo", "a.safetensors", MIB)
            with Repository(Reference.parse(f"{host}/you/app"), push=True) as repository:
                baked = bake(bundles([weight(file)]), RegistrySink(repository), access(hub))
        layers = [WeightLayer(each.bundle, each.blob) for each in baked]
        digests.add(assemble(runtime.manifest, runtime.config, layers).descriptor.digest)
    assert len(digests) == 1
