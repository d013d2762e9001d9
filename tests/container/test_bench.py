"""The benchmarks run, print their figures, and fail when a gate is missed."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from images import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from images import Image

pytestmark = pytest.mark.engine


def bench(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "bench" / name), *options]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)


def test_start_is_measured(lazy: Image) -> None:
    """Ten times its gate, since other tests may be running beside it."""
    done = bench("start.py", f"--image={lazy.name}", "--runs=3", "--pairs=1", "--limit=3")
    assert done.returncode == 0, done.stderr
    assert "start.sh to the exec of ComfyUI: median" in done.stdout
    assert "paired difference median" in done.stdout


def test_cold_starts_are_measured_beside_a_bare_comfyui(lazy: Image) -> None:
    done = bench("cold_start.py", f"--image={lazy.name}", "--rounds=1", "--limit=3", "--late-limit=20")
    assert done.returncode == 0, done.stderr
    for way in ("bare", "podkiln", "everything"):
        assert f"\n{way} " in done.stdout


def test_render_is_measured() -> None:
    done = bench("render.py", "--runs=1", "--render-limit=10", "--help-limit=2.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("median") == 3


@pytest.mark.usefixtures("bootstrap_base")
def test_a_bake_is_measured_beside_a_bare_copy(tmp_path: Path) -> None:
    """At a size at which times say nothing; memory and disk keep to their limits at any."""
    done = bench(
        "bake.py",
        *("--gib=0.07", "--rounds=1", "--only=podkiln,copy", "--no-warm-up", "--no-rest", "--no-large"),
        f"--work={tmp_path}",
    )
    assert "podkiln's time for the weights alone by that of a bare copy" in done.stdout, done.stderr
    assert "ok      2 files: peak memory of podkiln and all it runs: " in done.stdout
    assert done.stdout.count("ok      2 files: growth of the builder's disk") == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("bootstrap_base")
def test_a_second_bake_is_measured(tmp_path: Path) -> None:
    done = bench("rebake.py", "--gib=0.07", "--limit=60", f"--work={tmp_path}")
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("ok      weight bytes ") == 2


@pytest.mark.usefixtures("bootstrap_base")
def test_updates_are_measured_in_an_engine_of_its_own(tmp_path: Path) -> None:
    """One update alone, in the storage mode where a layer that changes moves all above it."""
    done = bench(
        "update_pull.py", "--mib=64", "--storage=overlay2", "--updates=start.sh", f"--work={tmp_path}"
    )
    assert done.returncode == 0, done.stderr + done.stdout
    figures = {
        row[0]: [float(cell) for cell in row[1:]]
        for line in done.stdout.splitlines()
        if len(row := re.split(r"\s{2,}", line)) == 3 and ", weights " in line
    }
    assert figures["start.sh, weights below"][0] == 0
    assert figures["start.sh, weights above"][0] >= 2 * 64


def test_a_missed_gate_fails() -> None:
    assert bench("render.py", "--runs=1", "--help-limit=0.001").returncode == 1


def test_an_image_that_is_not_there_is_one_sentence(docker_engine: str) -> None:
    done = bench("start.py", "--image=localhost/podkiln:none")
    assert done.returncode == 1
    assert done.stderr.startswith("bench/start.py: localhost/podkiln:none could not be measured: ")
    assert "No such image" in done.stderr
    assert "Traceback" not in done.stderr
