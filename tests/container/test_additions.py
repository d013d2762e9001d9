"""Packages above the shared layers, done as docs/how-to/own-packages.md says, with the real apt and uv."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

import pytest
from containers import docker
from images import BASE, ROOT, SUBSTITUTES, SYSTEM_CA, Image, podkiln

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from images import Built

    from podkiln.build.base_image import BaseLayout

pytestmark = pytest.mark.engine
PAGE = (ROOT / "docs/how-to/own-packages.md").read_text()
# Small ones of the kinds that the page adds: a build of ffmpeg and a compiler takes minutes.
SMALL = {"ffmpeg, git": "tree", "[compiler]": "[]"}


def example(folder: Path) -> Path:
    """The page's first description, with other packages in the place of large ones, and without nodes."""
    (text,) = re.findall(r"```yaml\n(# with-ffmpeg\.yaml\n.*?)```", PAGE, re.DOTALL)
    for large, small in SMALL.items():
        assert large in text
        text = text.replace(large, small)
    path = folder / "with-ffmpeg.yaml"
    path.write_text(text + "nodes: []\n")
    return path


def commands() -> list[list[str]]:
    """The page's first commands, as words behind ./build.py."""
    block = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[0]
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines()]


@pytest.fixture(scope="module")
def studio(
    bootstrap_base: BaseLayout, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Image, str]]:
    """The image that the page's commands make, and what `plan` has printed."""
    folder = tmp_path_factory.mktemp("studio")
    example(folder)
    lock, plan, build = commands()
    done = podkiln(*lock, *BASE, "--ca-bundle", SYSTEM_CA, root=ROOT, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "with-ffmpeg.locks/additions/comfyui-0.33.0-cuda-13.0/additions.txt").is_file()
    planned = podkiln(*plan, *BASE, cwd=folder)
    assert planned.returncode == 0, planned.stderr
    report, out = folder / "report.json", folder / "dist"
    options = (*SUBSTITUTES, "--ca-bundle", SYSTEM_CA, "--out", out, "--report", report)
    done = podkiln(*build, *options, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    row = json.loads(report.read_text())
    yield Image("with-ffmpeg", row["image"], out / "with-ffmpeg" / "image", row), planned.stdout
    docker("image", "rm", "--force", row["image"], check=False)


def test_the_shared_layers_are_those_of_the_shipped_variants(studio: tuple[Image, str], built: Built) -> None:
    image, planned = studio
    shipped = [layer["digest"] for layer in built.images["lazy"].report["layers"]]
    own = [(layer["digest"], layer["what"]) for layer in image.report["layers"]]
    shared = [digest for digest, _ in own if digest in shipped]
    at = next(number for number, (_, what) in enumerate(own) if "add-packages.sh" in what)
    assert [digest for digest, _ in own[:at]] == shipped[:at] == shared[:at]
    assert "install-tree.sh" in own[at - 1][1], "ComfyUI's is the highest of them"
    assert "/requirements/additions.txt" in own[at + 1][1]
    assert re.search(r"added Debian packages: tree  \(about [0-9.]+ [kM]B\)", planned)
    assert re.search(r"added Python packages: humanize>=4  \(about [0-9.]+ [kM]B\)", planned)


def test_what_was_added_works_and_nothing_else_has_changed(studio: tuple[Image, str], built: Built) -> None:
    image, _ = studio
    code = "import aiohttp, humanize; print(humanize.naturalsize(3e9))"
    told = docker(
        "run",
        "--rm",
        "--entrypoint=sh",
        image.name,
        "-c",
        f"tree --version; /opt/venv/bin/python -c '{code}'",
    )
    assert "tree v" in told.stdout
    assert "3.0 GB" in told.stdout
    listed = "dpkg-query --show; /opt/venv/bin/python -m pip list --format=freeze"
    before, after = (
        set(docker("run", "--rm", "--entrypoint=sh", name, "-c", listed).stdout.splitlines())
        for name in (built.images["lazy"].name, image.name)
    )
    assert before - after == set()
    assert {re.split(r"[\t=]", line)[0] for line in after - before} == {"tree", "humanize"}
    manifest = json.loads(
        docker("run", "--rm", "--entrypoint=cat", image.name, "/opt/podkiln/manifest.json").stdout
    )
    assert manifest["additions"]["debian_packages"].keys() == {"tree"}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            "[tree, systemd]",
            "runtime.apt.add[1]: systemd would remove systemd-standalone-sysusers, and the shared",
        ),
        ("[adduser]", "runtime.apt.add[0]: adduser is there already: another package of the image needs it."),
    ],
)
def test_packages_that_cannot_be_added_are_one_sentence(asked: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: lazy\ntitle: T\ndescription: D\nruntime: {{apt: {{add: {asked}}}}}\n")
    done = podkiln("lock", "--variant", path, *BASE, "--ca-bundle", SYSTEM_CA)
    assert done.returncode == 3, done.stderr
    assert f"podkiln: {path}:4: {says}" in done.stderr
    assert not (tmp_path / "mine.locks" / "additions").exists()
