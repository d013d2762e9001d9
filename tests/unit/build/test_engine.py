"""Engines are judged by what they do; each thing one can lack is one sentence with a way out."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from layouts import make_layout

from podkiln.build import engine
from podkiln.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

CONTAINERD_STORE = [["driver-type", "io.containerd.snapshotter.v1"]]
OVERLAY2_STORE = [["Backing Filesystem", "extfs"]]

# An exporter that does not know how to leave layers plain ignores the options.
FAKE = """#!/bin/sh
here=$(dirname "$0")
echo "$*" >>"$here/calls"
case "$*" in
    'version '*) exit "$(cat "$here/version")" ;;
    'buildx version') exit "$(cat "$here/buildx")" ;;
    'buildx inspect'*) cat "$here/inspect"; exit "$(cat "$here/inspect-exit")" ;;
    'info '*) cat "$here/info" ;;
    'buildx build '*)
        if [ -s "$here/error" ]; then cat "$here/error" >&2; exit 1; fi
        for argument; do case "$argument" in *dest=*) dest=${argument#*dest=} ;; esac; done
        cp -r "$here/made" "${dest%%,*}" ;;
    *) exit 99 ;;
esac
"""


class Docker:
    """A `docker` whose answers are files; a real one is judged in tests/container/test_engine.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "docker").write_text(FAKE)
        (folder / "docker").chmod(0o755)
        self.answer(version=0, buildx=0, error="", **{"inspect-exit": 0})
        make_layout(folder / "made", plain=True)
        self.has(storage=CONTAINERD_STORE)

    def answer(self, **answers: object) -> None:
        for name, text in answers.items():
            (self.folder / name).write_text(f"{text}")

    def has(self, *, storage: object, driver: str = "docker") -> None:
        self.answer(
            inspect=f"Name:          default\nDriver:        {driver}\nLast Activity: 2026-01-01\n",
            info=json.dumps({"Name": "pc", "ID": "1", "Driver": "overlay2", "DriverStatus": storage}),
        )

    @property
    def builds(self) -> int:
        return (self.folder / "calls").read_text().count("buildx build")


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BUILDX_BUILDER", raising=False)
    return Docker(folder)


def refusal(builder: str | None = None) -> EngineError:
    with pytest.raises(EngineError) as caught:
        engine.require(builder)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


def test_an_engine_with_the_containerd_store_can_build(docker: Docker) -> None:
    assert engine.require(None) == engine.Engine("pc", "containerd", exports_oci=True, builder=None)


def test_a_good_verdict_is_remembered_for_this_very_engine(docker: Docker) -> None:
    engine.require(None)
    engine.require(None)
    assert docker.builds == 1
    docker.has(storage=OVERLAY2_STORE)
    engine.require(None)
    assert docker.builds == 2


def test_a_bad_verdict_is_not_remembered(docker: Docker) -> None:
    docker.answer(error="ERROR: no space left on device")
    assert not engine.probe(None).exports_oci
    docker.answer(error="")
    assert engine.probe(None).exports_oci


def test_a_cache_that_cannot_be_written_costs_only_time(
    docker: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert engine.probe(None).exports_oci


def test_without_the_containerd_store_the_daemon_json_line_is_given(docker: Docker) -> None:
    docker.has(storage=OVERLAY2_STORE)
    docker.answer(error="ERROR: OCI exporter is not supported for the docker driver.\nSwitch to another.")
    wrong = refusal()
    assert "keeps images in overlay2" in str(wrong)
    assert '{"features":{"containerd-snapshotter":true}}' in str(wrong.hint)
    assert "--builder podkiln" in str(wrong.hint)


def test_an_exporter_that_ignores_the_options_is_found_out(docker: Docker) -> None:
    shutil.rmtree(docker.folder / "made")
    make_layout(docker.folder / "made")
    assert "The layer is application/vnd.oci.image.layer.v1.tar+gzip." in str(refusal())
    shutil.rmtree(docker.folder / "made")
    (docker.folder / "made").write_text("an archive")
    assert "It wrote no folder." in str(refusal())


def test_buildkits_own_error_is_quoted(docker: Docker) -> None:
    docker.answer(error="#1 resolving\nERROR: failed to solve: disk full\nView details: somewhere")
    assert str(refusal()).endswith("failed to solve: disk full")


def test_a_builder_of_its_own_does_not_depend_on_the_engines_storage(docker: Docker) -> None:
    docker.has(storage=OVERLAY2_STORE, driver="docker-container")
    assert engine.require("mine") == engine.Engine(
        "default", "docker-container", exports_oci=True, builder="mine"
    )
    calls = (docker.folder / "calls").read_text()
    assert "buildx inspect mine" in calls
    assert "buildx build --builder mine" in calls
    assert "info" not in calls


def test_an_unknown_builder_is_named(docker: Docker) -> None:
    docker.answer(inspect="", **{"inspect-exit": 1})
    assert "no buildx builder 'nope'" in str(refusal("nope"))


def test_no_buildx(docker: Docker) -> None:
    docker.answer(buildx=1)
    assert "no buildx" in str(refusal())


def test_nothing_answers(docker: Docker) -> None:
    """`docker buildx inspect` exits with 0 then."""
    docker.answer(inspect="Name:   default\nDriver: docker\nError:  Cannot connect to the Docker daemon\n")
    assert "No Docker Engine answers: Cannot connect to the Docker daemon" in str(refusal())


def test_no_docker_at_all(docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "'docker' is not on the PATH" in str(refusal())


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands in for scripts/host/ensure_engine.sh: it says one sentence and fails."""
    path = tmp_path / "ensure.sh"
    path.write_text("#!/bin/sh\necho 'ensure_engine: no engine (E: x): install one.' >&2\nexit 8\n")
    path.chmod(0o755)
    monkeypatch.setattr(engine, "_SCRIPT", path)
    return path


def test_an_engine_that_answers_is_left_alone(docker: Docker, script: Path) -> None:
    engine.ensure()
    assert docker.builds == 0


def test_a_chosen_builder_needs_no_engine_here(
    docker: Docker, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.answer(version=1)
    monkeypatch.setenv("BUILDX_BUILDER", "elsewhere")
    engine.ensure()


@pytest.mark.parametrize("lacking", ["version", "buildx"])
def test_the_scripts_sentence_becomes_message_and_hint(docker: Docker, script: Path, lacking: str) -> None:
    docker.answer(**{lacking: 1})
    with pytest.raises(EngineError) as caught:
        engine.ensure()
    assert str(caught.value) == "No engine (E: x)."
    assert caught.value.hint == "Install one."
    assert caught.value.exit_code == 8


def test_a_script_that_succeeds_is_silent(docker: Docker, script: Path) -> None:
    docker.answer(version=1)
    script.write_text("#!/bin/sh\nexit 0\n")
    engine.ensure()


PLATFORMS = (
    "Name: default\nDriver: docker\nPlatforms: linux/amd64*, linux/386\nPlatforms: linux/amd64, linux/arm\n"
)


def test_a_builder_says_what_it_builds_for(docker: Docker) -> None:
    docker.answer(inspect=PLATFORMS)
    engine.require_platform(None, "linux/amd64")
    with pytest.raises(EngineError) as refused:
        engine.require_platform(None, "linux/arm64")
    assert str(refused.value) == (
        "The builder default builds for linux/amd64, linux/386, linux/arm, and not for linux/arm64."
    )
    assert "--builder NAME" in (refused.value.hint or "")
    docker.answer(inspect="Name: default\nDriver: docker\n")
    engine.require_platform(None, "linux/arm64")  # it says nothing, so the build will tell
