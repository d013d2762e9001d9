"""`docker load` takes the streamed archive in both storage modes of the engine, zstd layers included."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import tiny_image

from podkiln.build.docker_load import load
from podkiln.errors import IntegrityError
from podkiln.oci import layout
from podkiln.oci.reference import Reference

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.engine

NAMES = ["podkiln-test-load:v1", "localhost:5000/podkiln-test/load"]


def docker(*argv: str) -> str:
    done = subprocess.run(["docker", *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(params=["containerd_engine", "overlay2_engine"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An engine in one of the two modes, as the one that `docker` speaks to."""
    monkeypatch.setenv("DOCKER_HOST", request.getfixturevalue(request.param))
    return str(request.param)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "uncompressed"])
def test_a_loaded_image_runs_under_all_its_names(engine: str, compression: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DOCKER_HOST")  # built by the first engine, which can export
        image = layout.read(tiny_image.build(tmp_path, compression=compression))
    assert (
        compression.removeprefix("un")
        in "".join(image.manifest.layers[0].media_type.split("+")) + "compressed"
    )
    load(image, [Reference.parse(name) for name in NAMES])
    for name in (NAMES[0], NAMES[1] + ":latest"):
        assert docker("run", "--rm", "--network", "none", name) == tiny_image.SAYS
        assert docker("image", "inspect", "--format", "{{.Config.Labels.who}}", name) == "tiny"
        docker("rmi", "--force", name)


def test_a_damaged_image_is_not_loaded(engine: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DOCKER_HOST")
        image = layout.read(tiny_image.build(tmp_path, noise=bytes(range(256)) * 4096))
    file = image.blob_path(image.manifest.layers[-1].digest)
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(IntegrityError, match="is damaged"):
        load(image, [Reference.parse("podkiln-test-damaged:v1")])
    assert "podkiln-test-damaged" not in docker("images")
