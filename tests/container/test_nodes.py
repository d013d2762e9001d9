"""Custom nodes, from an address to a running image as docs/how-to/custom-nodes.md says; imports are tested.

GitHub is not reached: git is told of checkouts in the place of the repositories, and the build takes these.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import registries
from containers import Container, docker
from images import BASE, NODES, ROOT, SYSTEM_CA, own_cache, podkiln

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podkiln.build.base_image import BaseLayout

pytestmark = pytest.mark.engine
PAGE = (ROOT / "docs/how-to/custom-nodes.md").read_text()
FIXTURES = ROOT / "tests/fixtures/nodes"
# Of the page's nodes, those that are large or far away.
LARGE = "  - kjnodes\n  - videohelpersuite\n"
FORTY = "0123456789abcdef0123456789abcdef01234567"
# A node of this repository; its own environment has another version of what the page's node has.
APART = """\
  - apart: {source: scripts/nodes/mvinverse, python: {venv: APART_PYTHON, install: [emoji==2.8.0, humanize]}}
"""


def commands() -> list[list[str]]:
    """The page's first commands, as words behind ./build.py."""
    block = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[0]
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines()]


@dataclass(frozen=True)
class Studio:
    """A folder with the page's variant, checkouts of the nodes, and git that takes them for GitHub."""

    folder: Path
    environment: dict[str, str]

    @classmethod
    def at(cls, folder: Path) -> Studio:
        names = [path.name for path in FIXTURES.iterdir()]
        config = folder / "gitconfig"
        lines = [
            f'[url "{folder / name}"]\n  insteadOf = https://github.com/example/{name.title()}\n'
            for name in names
        ]
        config.write_text("".join([*lines, "[user]\n  name = Test\n  email = test@example.com\n"]))
        studio = cls(folder, {"GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_NOSYSTEM": "1"})
        for name in names:
            shutil.copytree(FIXTURES / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            with (folder / name / "__init__.py").open("a") as file:
                file.write(f"# {uuid.uuid4()}\n")  # or an engine that ran these tests before has it all
            for words in ("init --quiet", "add .", "commit --quiet --message=one"):
                studio.git(name, *words.split())
            studio.git(name, "config", "uploadpack.allowAnySHA1InWant", "true")
        return studio

    def git(self, name: str, *words: str) -> str:
        argv = ["git", "-C", str(self.folder / name), *words]
        done = subprocess.run(
            argv,
            env={"PATH": "/usr/bin:/bin", **self.environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def describe(self, *nodes: str, more: str = "") -> None:
        """Write the page's variant, with our node in the place of the page's, and further ones behind it."""
        (text,) = re.findall(r"```yaml\n(# with-nodes\.yaml\n.*?)```", PAGE, re.DOTALL)
        assert LARGE in text
        text = text.replace(LARGE, "").replace("ComfyUI-Example", "Example")
        text = text.replace(FORTY, self.git("example", "rev-parse", "HEAD"))
        for name in nodes:
            commit = self.git(name, "rev-parse", "HEAD")
            text += f"  - {name}:\n      repo: https://github.com/example/{name.title()}\n"
            text += f"      commit: {commit}\n      python: {{install: [humanize]}}\n"
        text += APART if nodes else ""
        (self.folder / "with-nodes.yaml").write_text(text + more)

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return podkiln(*words, cwd=self.folder, env=self.environment)

    def lock(self) -> None:
        done = self.run(*commands()[0], *BASE, "--ca-bundle", SYSTEM_CA)
        assert done.returncode == 0, done.stderr

    def build(self, out: str, *options: str | Path) -> tuple[dict[str, Any], str]:
        """Build as the page does; return the report, and what was said."""
        *_, build = commands()
        given: list[str | Path] = [*NODES, "--ca-bundle", SYSTEM_CA]
        for name in self.nodes():
            given += ["--source", f"node-{name}={self.folder / name}"]
        done = self.run(*build, *given, "--out", self.folder / out, *options)
        assert done.returncode == 0, done.stderr[-5000:]
        return json.loads((self.folder / out / "with-nodes/report.json").read_text()), done.stderr

    def nodes(self) -> list[str]:
        return re.findall(r"^  - (\w+):$", (self.folder / "with-nodes.yaml").read_text(), re.MULTILINE)


@dataclass(frozen=True)
class Made:
    """The images that the page's commands make: with one node, and with one more."""

    first: dict[str, Any]
    second: dict[str, Any]
    planned: str
    log: str


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio.at(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def made(bootstrap_base: BaseLayout, studio: Studio) -> Iterator[Made]:
    studio.describe()
    studio.lock()
    planned = studio.run(*commands()[1], *BASE)
    assert planned.returncode == 0, planned.stderr
    first, log = studio.build("one")
    studio.describe("second")
    studio.lock()
    second, _ = studio.build("two", "--tag", "two-nodes")
    yield Made(first, second, planned.stdout, log)
    for report in (first, second):
        docker("image", "rm", "--force", report["image"], check=False)


def test_three_commands_make_an_image_whose_nodes_comfyui_has(made: Made) -> None:
    assert len(commands()) == 3
    assert re.search(r"packages of the node example  \(about [0-9.]+ kB\)", made.planned)
    assert re.search(r"^.* custom node example  ", made.planned, re.MULTILINE)
    with Container(made.second["image"]) as pod:
        pod.wait_ready()
        told = pod.get("/object_info")
        assert told["ExampleEmoji"]["input"] == {"required": {"text": ["STRING", {"default": ":snake:"}]}}
        assert "SecondSize" in told
        rows = json.loads(pod.read("/opt/podkiln/nodes.json"))["nodes"]
        assert [(row["id"], row["folder"], row["included"]) for row in rows] == [
            ("example", "Example", True),
            ("second", "Second", True),
            ("apart", "mvinverse", True),
        ]
        code = "import emoji, humanize; print(emoji.__spec__.cached, humanize.naturalsize(3e9))"
        assert pod.exec("/opt/venv/bin/python", "-c", code).stdout.endswith("3.0 GB\n")
        # Compiled with the image: nothing was left to do at the first start.
        pod.exec("sh", "-c", "ls /opt/ComfyUI/custom_nodes/Example/__pycache__/nodes.cpython-*.pyc")


def test_a_node_of_this_repository_has_an_environment_that_comfyui_does_not_see(made: Made) -> None:
    python = "/opt/node-venvs/apart/bin/python"
    code = "import emoji, humanize as h, aiohttp; print(*(each.__file__ for each in (emoji, h, aiohttp)))"
    with Container(made.second["image"]) as pod:
        pod.wait_ready()
        assert "PodkilnMVInverse" in pod.get("/object_info")
        (row,) = (
            each
            for each in json.loads(pod.read("/opt/podkiln/nodes.json"))["nodes"]
            if each["commit"] is None
        )
        assert row["environment"] == {"APART_PYTHON": python}
        own, image = "/opt/node-venvs/apart/lib/", "/opt/venv/lib/"
        places = pod.exec(python, "-c", code).stdout.split()
        assert [each.startswith(own) for each in places] == [True, True, False], (
            "what it lacks is the image's"
        )
        assert places[2].startswith(image)
        places = pod.exec("/opt/venv/bin/python", "-c", code).stdout.split()
        assert all(each.startswith(image) for each in places)
        version = "import importlib.metadata; print(importlib.metadata.version('emoji'))"
        assert pod.exec(python, "-c", version).stdout == "2.8.0\n"


def test_a_checkout_of_the_locked_commit_is_no_substitute(made: Made) -> None:
    assert set(made.second["substituted"]) == {"base", "comfyui", "requirements"}


def test_a_node_more_adds_its_own_layers_and_changes_none(made: Made) -> None:
    """So a host that has the first image pulls those alone, and podkiln's own."""
    first = [layer["digest"] for layer in made.first["layers"]]
    second = [layer["digest"] for layer in made.second["layers"]]
    shared = next(at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    what = [layer["what"] for layer in made.second["layers"]]
    assert "custom_nodes/Example" in what[shared - 1], "all up to the first node's files"
    assert "/requirements/node-second.txt" in what[shared]
    assert "custom_nodes/Second" in what[shared + 1]
    assert "/requirements/node-apart.txt" in what[shared + 2]
    assert "custom_nodes/mvinverse" in what[shared + 3]
    assert len(second) == len(first) + 4


def test_a_host_that_has_the_first_image_pulls_the_layers_of_the_further_nodes_alone(
    made: Made, studio: Studio, containerd_engine: str, tmp_path: Path
) -> None:
    """Counted at the registry, of which the engine asks blobs."""
    pid = Path(containerd_engine.removeprefix("unix://")).with_name("pid").read_text().strip()
    read = []
    with registries.serve(tmp_path) as host:
        for out in ("one", "two"):
            layout = f"oci:{studio.folder / out}/with-nodes/image"
            copy = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", layout]
            subprocess.run([*copy, f"docker://{host}/team/nodes:{out}"], check=True)
        with registries.serve(tmp_path, host=host, network_of=pid):
            for out in ("one", "two"):
                docker("--host", containerd_engine, "pull", "--quiet", f"{host}/team/nodes:{out}")
                read.append(registries.blobs_read(tmp_path))
    first, second = ({layer["digest"] for layer in each["layers"]} for each in (made.first, made.second))
    assert first & set(read[0])
    again = read[1][len(read[0]) :]
    (config,) = set(again) - second
    assert sorted(again) == sorted([*(second - first), config])
    docker("--host", containerd_engine, "rmi", *(f"{host}/team/nodes:{out}" for out in ("one", "two")))


def test_the_import_is_tested_once(made: Made, studio: Studio) -> None:
    assert "podkiln: imported without a network:" in made.log
    again, log = studio.build("two", "--tag", "two-nodes")
    assert "podkiln: imported without a network:" not in log
    assert [layer["digest"] for layer in again["layers"]] == [
        layer["digest"] for layer in made.second["layers"]
    ]


def test_a_node_that_cannot_be_imported_ends_the_build_with_its_own_line(made: Made, studio: Studio) -> None:
    """It lacks a package: nothing of that is in an image, and none is left behind."""
    broken = studio.folder / "broken"
    shutil.copytree(studio.folder / "example", broken, dirs_exist_ok=True)
    text = (broken / "nodes.py").read_text()
    (broken / "nodes.py").write_text(text.replace("import emoji\n", "import emojis\n"))
    line = text.splitlines().index("import emoji") + 1
    out = studio.folder / "broken-out"
    done = studio.run(
        *("--variant", "./with-nodes.yaml", *NODES, "--source", f"node-example={broken}"),
        *("--source", f"node-second={studio.folder / 'second'}", "--ca-bundle", SYSTEM_CA, "--out", out),
    )
    assert done.returncode == 9
    where = f"nodes.py:{line}: ModuleNotFoundError: No module named 'emojis'."
    sentence = f"podkiln: The custom node example cannot be imported: {where}"
    assert sentence in done.stderr.splitlines()[-2], done.stderr[-6000:]
    assert not list(out.rglob("image"))


def test_a_push_of_known_nodes_builds_and_imports_nothing(
    made: Made, studio: Studio, registry: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their layers are in the registry, and so have passed the test."""
    host = registry()
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_cache(tmp_path / "cache")))
    push = ("--allow-substituted", "--registry", f"{host}/team")
    digests = []
    for seconds in (7, 8):
        studio.describe("second", more=f"runtime: {{stop_seconds: {seconds}}}\n")
        sources = [f"node-{name}={studio.folder / name}" for name in studio.nodes()]
        done = studio.run(
            *("--variant", "./with-nodes.yaml", *NODES, "--push", *push, "--ca-bundle", SYSTEM_CA),
            *(word for each in sources for word in ("--source", each)),
            *("--out", tmp_path / "dist"),
        )
        assert done.returncode == 0, done.stderr[-4000:]
        digests.append(json.loads((tmp_path / "dist/with-nodes/report.json").read_text())["digest"])
    assert "its runtime is in the registry" in done.stderr
    assert digests[0] != digests[1]
    verified = studio.run(
        "verify", "--variant", "./with-nodes.yaml", "--json", f"{host}/team/podkiln@{digests[1]}"
    )
    findings = json.loads(verified.stdout)["findings"]
    assert all(each.startswith("It was built with a substitute for ") for each in findings), findings
    assert not any("nodes" in each for each in findings)


def test_an_image_without_nodes_says_so_and_is_else_as_locked(
    made: Made, studio: Studio, registry: Callable[[], str], tmp_path: Path
) -> None:
    """What it lacks is one finding, and no layer, label or step is another."""
    host = registry()
    studio.describe("second")
    done = studio.run(
        *("--variant", "./with-nodes.yaml", *NODES, "--source", "nodes=none", "--ca-bundle", SYSTEM_CA),
        *("--push", "--allow-substituted", "--registry", f"{host}/team", "--out", tmp_path / "dist"),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads((tmp_path / "dist/with-nodes/report.json").read_text())
    verified = studio.run("verify", "--variant", "./with-nodes.yaml", "--json", report["image"])
    findings = json.loads(verified.stdout)["findings"]
    assert all(each.startswith("It was built with a substitute for ") for each in findings), findings
    assert any(each.startswith("It was built with a substitute for nodes: none, ") for each in findings)
