"""The benchmarks run, print their figures, and fail when a gate is missed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from images import ROOT

if TYPE_CHECKING:
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


def test_render_is_measured() -> None:
    done = bench("render.py", "--runs=1", "--render-limit=10", "--help-limit=2.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("median") == 3


def test_a_missed_gate_fails() -> None:
    assert bench("render.py", "--runs=1", "--help-limit=0.001").returncode == 1


def test_an_image_that_is_not_there_is_one_sentence(docker_engine: str) -> None:
    done = bench("start.py", "--image=localhost/podkiln:none")
    assert done.returncode == 1
    assert done.stderr.startswith("bench/start.py: localhost/podkiln:none could not be measured: ")
    assert "No such image" in done.stderr
    assert "Traceback" not in done.stderr
