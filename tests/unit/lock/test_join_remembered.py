"""images.yml puts into the lock what the jobs of its matrix have pushed, by its own steps."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from podkiln.lock import layers, runtimes
from podkiln.lock.layers import RememberedLayer
from podkiln.lock.runtimes import RememberedRuntime, RuntimeLayer
from podkiln.oci import spec
from podkiln.oci.reference import Reference

ROOT = Path(__file__).parents[3]
WORKFLOW = ROOT / ".github/workflows/images.yml"
SCRIPT = "scripts/host/join_remembered.py"
OLD, LAZY, BAKED = (spec.digest_of(name.encode()) for name in ("old", "lazy", "baked"))
HERE = Reference.parse("ghcr.io/you/podkiln")
GH = """\
#!/bin/sh
echo "$*" >>"$GH_LOG"
case "$1 $2" in "pr list") echo 0 ;; esac
"""


def runtime(name: str) -> RememberedRuntime:
    layer = RuntimeLayer(digest=spec.digest_of(name.encode()), size=9, diff_id=spec.digest_of(b"tar"))
    return RememberedRuntime(name=name, layers=(layer,), base=1, settings={}, history=())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose lock knows one runtime, and what two jobs of the matrix have pushed since."""
    checkout = tmp_path / "checkout"
    (checkout / "variants/locks").mkdir(parents=True)
    (checkout / SCRIPT).parent.mkdir(parents=True)
    shutil.copy(ROOT / SCRIPT, checkout / SCRIPT)
    runtimes.write(checkout / "variants/locks/runtimes.json", OLD, runtime("old"), HERE)
    for name, recipe in (("lazy", LAZY), ("baked", BAKED)):
        folder = tmp_path / "temp/pushed" / f"pushed-{name}"
        folder.mkdir(parents=True)  # a job of a tag, which does not know what came into the lock since
        runtimes.write(folder / "runtimes.json", recipe, runtime(name), HERE)
    layer = RememberedLayer(name="a model", digest=spec.digest_of(b"layer"), size=5)
    layers.write(tmp_path / "temp/pushed/pushed-baked/layers.json", {spec.digest_of(b"recipe"): layer}, HERE)
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    return checkout


def propose(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run the steps of the job that proposes, in a repository with an origin."""
    folder = checkout.parent
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(folder),
        "RUNNER_TEMP": str(folder / "temp"),
        "GH_LOG": str(folder / "gh.log"),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "BASE": "main",
        "BRANCH": "pushed-layers",
    }
    steps = [
        step["run"]
        for step in yaml.safe_load(WORKFLOW.read_text())["jobs"]["propose"]["steps"]
        if "run" in step
    ]
    prepared = (
        "git init --quiet --bare ../origin.git; git init --quiet --initial-branch=main; git add .\n"
        "git -c user.name=T -c user.email=t@example.com commit --quiet --message=before\n"
        "git remote add origin ../origin.git\n"
    )
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", prepared + "\n".join(steps)],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_the_matrix_pushed_is_proposed_for_the_lock(checkout: Path) -> None:
    done = propose(checkout)
    assert done.returncode == 0, done.stderr
    found = runtimes.read(checkout / "variants/locks/runtimes.json")
    assert set(found) == {OLD, LAZY, BAKED}
    assert layers.read(checkout / "variants/locks/layers.json") == {
        spec.digest_of(b"recipe"): spec.digest_of(b"layer")
    }
    show = ["git", "show", "--name-only", "--format=%s", "pushed-layers"]
    told = subprocess.run(
        show, cwd=checkout.parent / "origin.git", capture_output=True, text=True, check=True
    ).stdout
    assert told.split("\n\n") == [
        "Remember the layers that were pushed",
        "variants/locks/layers.json\nvariants/locks/runtimes.json\n",
    ]
    assert "pr create --base main --head pushed-layers" in (checkout.parent / "gh.log").read_text()


def test_what_the_lock_knows_already_is_not_proposed(checkout: Path) -> None:
    for folder in (checkout.parent / "temp/pushed").iterdir():
        shutil.rmtree(folder)
        shutil.copytree(checkout / "variants/locks", folder)
    before = (checkout / "variants/locks/runtimes.json").read_text()
    done = propose(checkout)
    assert done.returncode == 0, done.stderr
    assert (checkout / "variants/locks/runtimes.json").read_text() == before
    assert not (checkout.parent / "gh.log").exists()
