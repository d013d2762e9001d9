"""Real engines, judged: the one that tests build with, one without the containerd store, and none at all."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podkiln.build import engine
from podkiln.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.build.base_image import BaseLayout

pytestmark = pytest.mark.engine

SCRIPTS = Path(engine.__file__).parents[2] / "scripts"
ENSURE = SCRIPTS / "host" / "ensure_engine.sh"
THERE = "/scripts/host/ensure_engine.sh"


@pytest.fixture(autouse=True)
def _fresh_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def ensure(**env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ENSURE)], env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=300
    )


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 8
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_the_engine_of_the_tests_can_build(docker_engine: str) -> None:
    assert engine.require(None).exports_oci


def test_a_good_engine_is_used_quietly(docker_engine: str) -> None:
    done = ensure()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_overlay2_is_refused_with_the_line_that_helps(
    overlay2_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", overlay2_engine)
    assert engine.probe(None) == engine.Engine(
        engine.probe(None).name, "overlay2", exports_oci=False, builder=None
    )
    with pytest.raises(EngineError, match="keeps images in overlay2") as caught:
        engine.require(None)
    line = '{"features":{"containerd-snapshotter":true}}'
    assert line in str(caught.value.hint)
    said = one_sentence(ensure())
    assert line in said
    assert "--builder" in said


def test_a_second_engine_with_the_containerd_store_passes(
    containerd_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", containerd_engine)
    assert engine.require(None).storage == engine.CONTAINERD
    assert ensure().returncode == 0


def test_somebodys_engine_elsewhere_is_not_replaced_by_one_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    assert "unset DOCKER_HOST" in one_sentence(ensure())
    with pytest.raises(EngineError, match=r"No engine answers at unix:///nowhere\.sock\.") as caught:
        engine.ensure()
    assert "unset DOCKER_HOST" in str(caught.value.hint)
    with pytest.raises(EngineError, match="No Docker Engine answers"):
        engine.probe(None)


def test_an_unknown_builder(docker_engine: str) -> None:
    with pytest.raises(EngineError, match="no buildx builder 'podkiln-no-such'"):
        engine.require("podkiln-no-such")


@pytest.fixture(scope="module")
def machine(bootstrap_base: BaseLayout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container that stands for a fresh Debian machine: no engine, but a kernel for one."""
    name = f"podkiln-machine-{os.getpid()}"
    context = tmp_path_factory.mktemp("machine")
    (context / "Dockerfile").write_text("FROM base\n")
    base = f"base=oci-layout://{bootstrap_base.path}@{bootstrap_base.digest}"
    tag = ["--tag", f"{name}:test", "--load"]
    subprocess.run(
        ["docker", "buildx", "build", "--quiet", "--build-context", base, *tag, str(context)], check=True
    )
    # A volume, because overlayfs does not lie on overlayfs.
    argv = [
        "docker",
        "run",
        "--detach",
        "--rm",
        "--privileged",
        "--name",
        name,
        "--volume",
        "/var/lib/docker",
    ]
    argv += ["--volume", f"{SCRIPTS}:/scripts:ro", f"{name}:test", "sleep", "1200"]
    try:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)
        subprocess.run(["docker", "rmi", "--force", f"{name}:test"], check=False, capture_output=True)


def inside(machine: str, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "exec", machine, "bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def test_a_fresh_machine_gets_an_engine_once(machine: str) -> None:
    """Forbidden; then by two callers at once; then once more. One daemon, and nothing left behind."""
    forbidden = inside(machine, f"PODKILN_NO_ENGINE_SETUP=1 {THERE}")
    assert "PODKILN_NO_ENGINE_SETUP=1 forbids" in one_sentence(forbidden)

    before = inside(machine, "ls -la /usr/sbin/policy-rc.d").stdout
    twice = f"{THERE} & one=$!; {THERE} & two=$!; wait $one && wait $two"
    done = inside(machine, twice)
    assert done.returncode == 0, done.stderr

    count = "cat /proc/[0-9]*/comm | grep -cx dockerd"
    assert inside(machine, count).stdout == "1\n"
    assert json.loads(inside(machine, "cat /etc/docker/daemon.json").stdout)["features"] == {
        "containerd-snapshotter": True
    }
    assert inside(machine, "ls -la /usr/sbin/policy-rc.d").stdout == before
    again = inside(machine, THERE)
    assert (again.returncode, again.stderr) == (0, "")


def test_a_daemon_that_dies_is_quoted(machine: str) -> None:
    """A configuration that somebody wrote is obeyed, and not touched."""
    assert inside(machine, THERE).returncode == 0
    stop = "kill $(cat /var/run/docker.pid); while docker version >/dev/null 2>&1; do sleep 0.2; done"
    broken = "echo '{\"nonsense\":' >/etc/docker/daemon.json; " + THERE
    said = one_sentence(inside(machine, f"{stop}; {broken}"))
    assert "unexpected end of JSON input" in said
    assert "/var/log/podkiln-dockerd.log" in said
    assert inside(machine, "cat /etc/docker/daemon.json").stdout == '{"nonsense":\n'
