"""A variant, a model, a node and a registry are a new file each, and no code: done as the how-tos say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "build.py",
    "bench",
    "docs",
    "podkiln",
    "scripts",
    "templates",
    "tests",
    "variants",
    "pyproject.toml",
)
PAGES = ("README.md", "CONTRIBUTING.md", "requirements.txt", "requirements-dev.txt", ".github")

# By their names the new files stand in the middle of the old ones. A variant that bakes, with all it offers.
VARIANT = """\
# yaml-language-server: $schema=schemas/variant.schema.json
extends: base
title: For home
description: SDXL, and one model more.
vram_gb: [24, 48]
models:
  offer: [sdxl-vae, mini, sdxl-base]
  default: [mini]
  bake: [sdxl-base, sdxl-vae]
nodes: [example]
"""
REGISTRY = """\
name: Acme's registry
host: registry.acme.example
layer_bytes: 50000000000
source: their handbook
"""
# What reads the data: a list of names in one of these would fail.
TESTS = [
    f"tests/unit/{name}.py"
    for name in (
        *("plan/test_alternatives", "plan/test_registry_limits"),
        *("config/test_catalog", "config/test_json_schema", "config/test_variant"),
        *("render/test_golden", "test_docs", "test_models_data", "test_nodes_data"),
    )
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The parts of the checkout that these commands and tests read."""
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("container", "dist")
    for name in (*PARTS, *PAGES):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=ignored)
        else:
            tree.mkdir(exist_ok=True)
            shutil.copy(source, tree / name)
    return tree


def run(tree: Path, *argv: str) -> str:
    """Run Python in the copy, with nobody to ask on the network; return what it says."""
    nobody = dict.fromkeys(("HF_ENDPOINT", "CIVITAI_ENDPOINT"), "http://127.0.0.1:9")
    nobody["DOCKER_HOST"] = "tcp://127.0.0.1:9"
    own = {**os.environ, **nobody, "PYTHONPATH": f"{tree}:{tree}/scripts", "PYTHONDONTWRITEBYTECODE": "1"}
    argv = (sys.executable, *argv)
    done = subprocess.run(argv, cwd=tree, capture_output=True, text=True, check=False, env=own)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_a_new_file_is_enough(copy: Path) -> None:
    how_to = (ROOT / "docs/how-to/add-a-model.md").read_text()
    example = re.search(r"```yaml\n(# model\n.*?)```", how_to, re.DOTALL)
    assert example
    (copy / "variants/models/mini.yaml").write_text(example[1])
    nodes = (ROOT / "docs/how-to/custom-nodes.md").read_text()
    node = re.search(r"```yaml\n(# node\n.*?)```", nodes, re.DOTALL)
    assert node
    # Without its packages, for which an index would be asked.
    alone = re.sub(r"^python:\n(  .*\n)+", "", node[1], flags=re.MULTILINE)
    (copy / "variants/nodes/example.yaml").write_text(alone)
    (copy / "variants/home.yaml").write_text(VARIANT)
    (copy / "variants/registries/acme.yaml").write_text(REGISTRY)
    for line in (
        "lock",
        "lock --check",
        "render --update-golden",
        "render --check",
        "schemas --check",
        "variants",
    ):
        said = run(copy, "-P", "-m", "podkiln", *line.split())
    assert re.search(r"^home +For home .* lock current$", said, re.MULTILINE)
    run(copy, "docs/generate.py", "--check")
    taking = "from podkiln.plan import registry_limits; print(registry_limits.taking(3 * 10**10))"
    taking = "from podkiln.plan import registry_limits; print(registry_limits.taking(3 * 10**10))"
    assert "Acme" in run(copy, "-P", "-c", taking)
    run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)
