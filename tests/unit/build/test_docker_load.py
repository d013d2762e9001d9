"""Loading: the whole archive reaches `docker load`, and its failure becomes one error."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest
from layouts import layer_of, make_layout

from podkiln.build.docker_load import load
from podkiln.errors import EngineError, IntegrityError
from podkiln.oci import layout
from podkiln.oci.reference import Reference

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [Reference.parse("you/app:v1")]


def fake_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_the_engine_gets_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, f'[ "$*" = "load --quiet" ] && exec cat > {tmp_path}/got.tar')
    load(layout.read(make_layout(tmp_path / "l")), NAMES)
    with tarfile.open(tmp_path / "got.tar") as tar:
        assert "manifest.json" in tar.getnames()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo no space left on device >&2; exit 1", "no space left on device"),
        ("exec <&-; echo Cannot connect to the Docker daemon >&2; exit 1", "Cannot connect"),
        ("cat > /dev/null; exit 3", "exit code 3"),
    ],
)
def test_a_failing_engine_is_an_error_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    fake_docker(tmp_path, monkeypatch, script)
    big = "x" * (1 << 18)  # more than a pipe holds, so that the writing end sees it break
    image = layout.read(make_layout(tmp_path / "l", layer_of(a=big)))
    with pytest.raises(EngineError, match=says):
        load(image, NAMES)


def test_no_docker_is_an_engine_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="'docker' is not on the PATH"):
        load(layout.read(make_layout(tmp_path / "l")), NAMES)


def test_a_damaged_blob_ends_the_client_before_it_sees_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_docker(tmp_path, monkeypatch, f"cat > /dev/null; touch {tmp_path}/took-it-for-whole")
    path = make_layout(tmp_path / "l")
    image = layout.read(path)
    file = image.blob_path(image.manifest.layers[0].digest)
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(IntegrityError, match="is damaged"):
        load(image, NAMES)
    assert not (tmp_path / "took-it-for-whole").exists()
