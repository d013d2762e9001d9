"""lock.yml as GitHub would run it: its own commands, against a local hub, registry, origin and `gh`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from comfyui_trees import stocked, tree, with_folders
from servers.hub import Hub
from servers.hub_content import CivitaiVersion, HubFile, Repository
from servers.hub_faults import Fault
from servers.registry import Registry

from podkiln.config import catalog
from podkiln.config.model import UNRESOLVED
from podkiln.oci import spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.config.model import ModelFile

ROOT = Path(__file__).parents[4]
WORKFLOW = ROOT / ".github/workflows/lock.yml"
BASE = spec.canonical_json({"schemaVersion": 2, "mediaType": spec.INDEX, "manifests": []})
NEWER = spec.digest_of(BASE)

GH = """\
#!/bin/sh
# Notes what it is asked; one pull request may be open.
echo "$*" >>"$GH_LOG"
case "$1 $2" in
  "pr list") cat "$GH_LOG.open" 2>/dev/null || echo 0 ;;
  "pr create") echo 1 >"$GH_LOG.open" ;;
esac
"""


SD1 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
"""The base of a family, whose lock is filled too."""


@dataclass(frozen=True)
class Listed(HubFile):
    """A file of which only the listing is asked for: gigabytes that need not be there."""

    length: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self.length


def listed(path: str, file: ModelFile, number: int) -> Listed:
    """Return what a hub would list: what is trusted, and something for what is not."""
    sha256 = f"{number:064x}" if file.sha256 == UNRESOLVED else file.sha256
    return Listed(path, b"", True, sha256, f"{number:040x}", file.size or 1000 + number)


def stock(hub: Hub) -> int:
    """Offer every file of the shipped models, and a family's base; return how many files models have."""
    count = 0
    hub.add(SD1, "model_index.json", b"{}", lfs=False)
    for entry in catalog.load().values():
        for file in entry.model.files:
            count += 1
            if file.huggingface:
                repository = hub.repositories.setdefault(file.huggingface, Repository(file.huggingface))
                repository.put(listed(str(file.path), file, count))
                if file.revision:
                    repository.commits[file.revision] = repository.commits[repository.head]
            elif file.civitai:
                number, model = file.civitai.version, file.civitai.model
                hub.versions[number] = CivitaiVersion(number, listed(file.filename, file, count), model=model)
    return count


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def runner(tmp_path: Path, hub: Hub) -> Iterator[Runner]:
    with Registry() as registry:
        registry.manifests["library/debian", "trixie-slim"] = (spec.INDEX, BASE)
        yield Runner(tmp_path, hub, registry.host())


class Runner:
    """A checkout, an origin to push to, and a machine as GitHub's, for one run of the workflow."""

    def __init__(self, folder: Path, hub: Hub, registry: str) -> None:
        self.checkout = folder / "checkout"
        self.origin = folder / "origin.git"
        self.temp = folder / "temp"
        self.log = folder / "gh.log"
        for name in ("podkiln", "scripts", "templates", "variants"):
            shutil.copytree(ROOT / name, self.checkout / name)
        for name in ("build.py", "requirements.txt", "requirements-dev.txt"):
            shutil.copy(ROOT / name, self.checkout)
        (self.checkout / ".venv").symlink_to(sys.prefix)
        (self.checkout / ".gitignore").write_text(".venv\n__pycache__/\n")
        for file in (
            *self.checkout.glob("variants/*.yaml"),
            *self.checkout.glob("variants/locks/*/runtime.json"),
        ):
            file.write_text(
                file.read_text().replace("debian:trixie-slim", f"{registry}/library/debian:trixie-slim")
            )
        binaries = folder / "bin"
        binaries.mkdir()
        self.temp.mkdir()
        (binaries / "gh").write_text(GH)
        (binaries / "gh").chmod(0o755)
        self.environment = {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "HOME": str(folder),
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "GH_LOG": str(self.log),
            "HF_ENDPOINT": hub.url,
            "CIVITAI_ENDPOINT": hub.url,
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        subprocess.run(["git", "init", "--quiet", "--bare", str(self.origin)], check=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "Test")
        self.git("config", "user.email", "test@example.com")
        self.git("remote", "add", "origin", str(self.origin))
        self.git("add", ".")
        self.git("commit", "--quiet", "--message=as it was")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.checkout,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def run(self, job: str, **values: str) -> None:
        """Run the steps of a job; actions are what the runner stands for. Fails as a step does."""
        for step in yaml.safe_load(WORKFLOW.read_text())["jobs"][job]["steps"]:
            if "run" not in step:
                continue
            given = {name: values.get(name, str(value)) for name, value in step.get("env", {}).items()}
            given = {name: value for name, value in given.items() if "${{" not in value}
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]],
                cwd=self.checkout,
                env={**self.environment, **given},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{step['run']}\n{done.stdout}\n{done.stderr}"

    def fresh(self) -> None:
        """Check out anew, as the next job does."""
        self.git("reset", "--quiet", "--hard", "main")

    @property
    def table(self) -> str:
        return (self.temp / "lock/table.md").read_text()

    def weights(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.checkout / "variants/locks/weights.json").read_text())[
            "models"
        ]
        return found


@pytest.mark.slow
def test_a_run_fills_the_lock_and_opens_a_pull_request_with_the_table(runner: Runner, hub: Hub) -> None:
    total = stock(hub)
    before = runner.weights()
    open_before = sum(not (file["sha256"] and file["size"]) for files in before.values() for file in files)
    assert open_before > 100
    runner.run("resolve", HF_TOKEN="hf_mine", CIVITAI_TOKEN="civ_mine")
    table = runner.table
    assert f"| locked | {total} of {total} |" in table
    assert f"| resolved by this run | {open_before} |" in table
    assert "| still unresolved | 0 |" in table
    assert "### Still unresolved" not in table
    row = next(line for line in table.splitlines() if "v3\\_sd15\\_mm.ckpt" in line)
    model, file, size, sha256, commit = row.strip("| ").split(" | ")
    locked = next(
        each for each in runner.weights()["animatediff"] if each["destination"].endswith("v3_sd15_mm.ckpt")
    )
    assert (model, int(size), sha256, commit) == (
        "animatediff",
        locked["size"],
        locked["sha256"],
        locked["revision"],
    )
    assert file == "animatediff\\_models/v3\\_sd15\\_mm.ckpt"
    assert "### For a person to decide" in table
    assert f"is {NEWER} now" in table
    assert (runner.temp.parent / "summary.md").read_text() == table
    assert {hit.authorization for hit in hub.hits if hit.path.startswith("/api/models/")} == {
        "Bearer hf_mine"
    }
    runner.fresh()
    runner.run("propose", GH_TOKEN="gh_mine", BASE="main")
    asked = runner.log.read_text().splitlines()
    assert asked[-1].startswith(
        "pr create --base main --head lock-update --title Lock what the hubs tell --body-file"
    )
    changed = runner.git("diff", "--name-only", "main", "lock-update").split()
    assert changed == ["variants/locks/families.json", "variants/locks/weights.json"]
    assert f"| families | base {SD1} | added |  | {hub.repositories[SD1].head} |".replace("_", "\\_") in table
    assert (
        runner.git("ls-remote", "origin", "lock-update").split()[0]
        == runner.git("rev-parse", "lock-update").strip()
    )


@pytest.mark.slow
def test_a_second_run_renews_the_pull_request_that_is_open(runner: Runner, hub: Hub) -> None:
    stock(hub)
    runner.run("resolve")
    for _ in range(2):
        runner.fresh()
        runner.run("propose", BASE="main")
        runner.git("switch", "--quiet", "main")
        runner.git("branch", "--quiet", "-D", "lock-update")
    said = [line.split()[:2] for line in runner.log.read_text().splitlines()]
    assert said.count(["pr", "create"]) == 1
    assert said.count(["pr", "edit"]) == 1


@pytest.mark.slow
def test_what_a_hub_does_not_tell_stands_in_the_table_with_the_reason(runner: Runner, hub: Hub) -> None:
    stock(hub)
    hub.fault(Fault("status", "/guoyww/animatediff", "hub", times=-1, status=403, error_code="GatedRepo"))
    runner.run("resolve")
    section = runner.table.partition("### Still unresolved")[2].partition("###")[0]
    rows = [line for line in section.splitlines() if line.startswith("| animatediff ")]
    assert len(rows) == 2
    assert "guoyww/animatediff is gated: accept its licence at" in rows[0]


@pytest.mark.slow
def test_nothing_new_opens_nothing(runner: Runner, hub: Hub) -> None:
    """And hubs that do not answer lose nothing."""
    hub.fault(Fault("status", where="hub", times=-1, status=404))
    before = runner.weights()
    runner.run("resolve")
    assert runner.weights() == before
    runner.fresh()
    runner.run("propose", BASE="main")
    assert not runner.log.exists()


@pytest.mark.slow
def test_a_lock_that_forgot_something_stops_the_run(runner: Runner, hub: Hub) -> None:
    stock(hub)
    runner.run("resolve")
    runner.git("commit", "--quiet", "--all", "--message=filled")
    path = runner.checkout / "variants/locks/weights.json"
    known = json.loads(path.read_text())
    known["models"]["animatediff"][0]["sha256"] = None
    path.write_text(json.dumps(known))
    argv = [sys.executable, "build.py", "lock", "--check", "--since", "HEAD"]
    done = subprocess.run(
        argv, cwd=runner.checkout, env=runner.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "mm_sdxl_v10_beta.ckpt: its sha256 was" in done.stderr
    assert "and is not known any more." in done.stderr


@pytest.fixture
def upstream(runner: Runner, tmp_path: Path) -> Path:
    """A repository in ComfyUI's place, with one release, and an index that has what it asks for."""
    more = with_folders("diffusion_models", "clip_vision", "latent_upscale_models", "upscale_models")
    folder = tree(tmp_path / "comfyui", "0.34.0", "foo\ntorch\n", folders=more)
    config = tmp_path / "gitconfig"
    config.write_text(
        f'[url "{folder}"]\n  insteadOf = https://github.com/Comfy-Org/ComfyUI\n'
        "[user]\n  name = Test\n  email = test@example.com\n"
    )
    runner.environment["GIT_CONFIG_GLOBAL"] = str(config)
    for arguments in (["init"], ["add", "."], ["commit", "--message=0.34.0"], ["tag", "v0.34.0"]):
        quiet = [] if arguments[0] in {"tag", "add"} else ["--quiet"]
        subprocess.run(["git", *arguments, *quiet], cwd=folder, env=runner.environment, check=True)
    shelf = stocked(tmp_path / "shelf")
    shelf.add("comfy-kitchen", "0.2.31")  # what is locked now, and still fits
    runner.environment |= shelf.environment
    shutil.copytree(ROOT / "tests/golden/lazy", runner.checkout / "tests/golden/lazy")
    runner.git("add", ".")
    runner.git("commit", "--quiet", "--message=golden")
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("upstream")
def test_a_newer_comfyui_moves_the_shipped_variants_in_one_pull_request(runner: Runner) -> None:
    runner.run("release")
    page = (runner.temp / "release/table.md").read_text()
    assert page.startswith("ComfyUI 0.34.0, commit ")
    assert "against 0.33.0." in page
    assert "| flag gone | --tls-keyfile |  |  |" in page
    runner.fresh()
    runner.git("clean", "--quiet", "--force", "-d")
    runner.run("propose-release", BASE="main")
    asked = runner.log.read_text().splitlines()
    assert asked[-1].startswith("pr create --base main --head comfyui-release --title Move to another")
    changed = runner.git("diff", "--name-only", "main", "comfyui-release").split()
    assert {"variants/base.yaml", "tests/golden/lazy/Dockerfile"} <= set(changed)
    assert "variants/flags/comfyui-0.34.0.yaml" in changed
    assert "variants/locks/comfyui-0.34.0-cuda-13.0/runtime.json" in changed
    assert "variants/locks/comfyui-0.34.0-cuda-13.0/apt/238901ecd27d/apt.json" in changed
    locked = runner.git("show", "comfyui-release:variants/locks/comfyui-0.34.0-cuda-13.0/python/comfyui.txt")
    assert "\ncomfy-kitchen==0.2.31 " in locked
    moved = runner.git("diff", "main", "comfyui-release", "--", "variants/base.yaml")
    lines = [line for line in moved.splitlines() if line.startswith(("+ ", "- "))]
    assert [re.sub(r" +", " ", line).split("#")[0].strip() for line in lines] == [
        '- version: "0.33.0"',
        '+ version: "0.34.0"',
    ]


def test_the_workflow_may_do_no_more_than_it_must() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    assert set(jobs) == {"resolve", "propose", "release", "propose-release"}
    for reading, writing in (("resolve", "propose"), ("release", "propose-release")):
        assert "permissions" not in jobs[reading]
        assert jobs[writing]["needs"] == reading
        assert jobs[writing]["permissions"] == {"contents": "write", "pull-requests": "write"}
        assert not any("build.py" in step.get("run", "") for step in jobs[writing]["steps"])
    secret = [
        step["name"] for job in jobs.values() for step in job["steps"] if "secrets." in json.dumps(step)
    ]
    assert secret == ["Resolve"]
    for job in jobs.values():
        for step in job["steps"]:
            assert "uses" not in step or len(step["uses"].partition("@")[2]) == 40, step
            assert "${{" not in step.get("run", "")  # what is filled in there could run
