"""`--load` into an engine with overlay2: one engine builds, another takes the image and runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import buildkits
import pytest
from containers import Container
from images import SUBSTITUTES, SYSTEM_CA, podkiln

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.engine


@pytest.fixture
def builder(docker_engine: str) -> Iterator[str]:
    """The first engine's BuildKit, for engines that cannot export OCI layouts themselves."""
    with buildkits.serve() as name:
        yield name


def test_an_image_is_loaded_and_runs_in_the_other_storage_mode_too(
    builder: str, overlay2_engine: str, tmp_path: Path
) -> None:
    """DOCKER_HOST says where the image is loaded, --builder who builds it.

    The engine of all other tests has containerd's storage, and test_load.py loads small images into both.
    """
    host = overlay2_engine
    done = podkiln(
        *("--variant", "lazy", *SUBSTITUTES, "--ca-bundle", SYSTEM_CA, "--out", tmp_path / "dist"),
        *("--builder", builder, "--load", "--tag", "second"),
        env={"DOCKER_HOST": host},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    name = "localhost/podkiln:second"
    with Container(name, env={"MODELS": "none"}, options=["--network", "none"], host=host) as pod:
        pod.wait_log("podkiln: ready in", patience=90)
        assert pod.exec("/usr/bin/python3", "-I", "-S", "/opt/podkiln", "health").returncode == 0
        assert pod.stop() < 10
