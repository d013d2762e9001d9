"""Pushing to a real registry; what arrives is inspected, pulled and run by others than us."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
import registries
import tiny_image
from servers.tcp_cutter import TcpCutter

from podkiln import registry as registry_
from podkiln.errors import IntegrityError, RegistryError
from podkiln.oci import layout, spec
from podkiln.oci.reference import Reference
from podkiln.registry import RegistryOptions, push
from podkiln.registry.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from podkiln.oci.layout import Layout

pytestmark = pytest.mark.engine

NOISE = 24 << 20  # bytes


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """An image with zstd layers, one of them of many chunks."""
    noise = random.Random(3).randbytes(NOISE)
    return layout.read(tiny_image.build(tmp_path_factory.mktemp("tiny"), noise=noise), full=True)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that wants user and password: me, s3cret."""
    with registries.serve(tmp_path_factory.mktemp("private"), htpasswd=registries.HTPASSWD) as host:
        yield host


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.smoke
def test_what_was_pushed_is_pulled_and_runs(registry: Callable[[], str], image: Layout) -> None:
    name = Reference.parse(f"{registry()}/you/app:v1")
    report = push(image, name)
    assert {layer.media_type for layer in image.manifest.layers} == {spec.LAYER_ZSTD}
    assert report.uploaded_bytes == image.size
    seen = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{name}"))
    assert seen["Digest"] == image.descriptor.digest == registry_.resolve_digest(name)
    assert seen["Labels"] == {"who": "tiny"}
    assert seen["Layers"] == [layer.digest for layer in image.manifest.layers]
    pinned = str(name.with_tag(None).with_digest(report.digest))
    try:
        run("docker", "pull", "--quiet", pinned)
        assert run("docker", "run", "--rm", "--network", "none", pinned).strip() == tiny_image.SAYS
    finally:
        subprocess.run(["docker", "rmi", "--force", pinned], capture_output=True, check=False)


def test_a_second_push_sends_nothing_and_another_repository_mounts(
    registry: Callable[[], str], image: Layout
) -> None:
    host = registry()
    push(image, Reference.parse(f"{host}/you/app:v1"))
    again = push(image, Reference.parse(f"{host}/you/app:v2"))
    assert (again.uploaded_bytes, again.existing_bytes) == (0, image.size)
    other = push(image, Reference.parse(f"{host}/you/other:v1"), mount_from=["you/none", "you/app"])
    assert (other.uploaded_bytes, other.mounted_bytes) == (0, image.size)
    assert other.digest == again.digest


def test_a_wire_that_is_cut_costs_no_more_than_what_was_under_way(
    registry: Callable[[], str], image: Layout, tmp_path: Path
) -> None:
    host = registry()
    with TcpCutter(host, cuts=3, after=5 << 20) as wire:
        settings = RegistryOptions(backoff=0.1)
        report = push(image, Reference.parse(f"{wire.host}/you/app:v1"), settings=settings)
        assert wire.cuts == 0
        assert wire.carried < image.size + 3 * (6 << 20)
    found, data = registry_.pull_manifest(Reference.parse(f"{host}/you/app:v1"))
    assert found.digest == report.digest
    assert data == image.manifest_bytes
    run(
        "skopeo",
        "copy",
        "--src-tls-verify=false",
        f"docker://{host}/you/app:v1",
        f"dir:{image.path}/../copied",
    )


def uploads(storage: Path) -> list[Path]:
    """Return what a registry still keeps of uploads that were never closed."""
    return [file for file in storage.glob("**/_uploads/*/data") if file.is_file()]


def test_a_damaged_layer_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    noise = random.Random(4).randbytes(4 << 20)
    image = layout.read(tiny_image.build(tmp_path, compression="uncompressed", noise=noise))
    big = max(image.manifest.layers, key=lambda layer: layer.size)
    data = bytearray(image.blob_path(big.digest).read_bytes())
    data[len(data) // 2] ^= 1
    image.blob_path(big.digest).write_bytes(data)
    with registries.serve(tmp_path / "registry") as host:
        with pytest.raises(IntegrityError, match="is damaged"):
            push(image, Reference.parse(f"{host}/you/app:v1"))
        assert uploads(tmp_path / "registry") == []
        assert not registry_.blob_exists(Reference.parse(f"{host}/you/app"), big)


def test_ctrl_c_leaves_nothing_behind(image: Layout, tmp_path: Path) -> None:
    """Pressed once: several blobs are on their way, and a second one may break off what cleans up."""
    first = threading.Lock()

    def interrupt(_what: str, done: int, total: int) -> None:
        if 0 < done < total and first.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    with registries.serve(tmp_path) as host:
        with pytest.raises(KeyboardInterrupt):
            push(image, Reference.parse(f"{host}/you/app:v1"), on_progress=interrupt)
        assert uploads(tmp_path) == []
        with pytest.raises(RegistryError, match="404"):
            registry_.resolve_digest(Reference.parse(f"{host}/you/app:v1"))


def test_the_login_comes_from_the_docker_config(
    private: str, image: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    name = Reference.parse(f"{private}/you/app:v1")
    with pytest.raises(RegistryError, match="requires a login") as caught:
        push(image, name)
    assert caught.value.hint == f"Run `docker login {private}`."
    run("docker", "login", "--username", "me", "--password", "s3cret", private)
    report = push(image, name)
    assert report.uploaded_bytes == image.size
    assert registry_.resolve_digest(name) == report.digest


def test_the_login_comes_from_a_helper(
    private: str, image: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-fake"
    helper.write_text("""#!/bin/sh\necho '{"Username":"me","Secret":"s3cret"}'""")
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {private: "fake"}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    push(image, Reference.parse(f"{private}/helped/app:v1"))


def test_a_wrong_password_is_one_sentence(private: str, image: Layout) -> None:
    settings = RegistryOptions(login=lambda _: Credentials("me", "wrong"))
    with pytest.raises(RegistryError, match="does not let this login look for blob"):
        push(image, Reference.parse(f"{private}/you/wrong:v1"), settings=settings)
