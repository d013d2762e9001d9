"""Builds that are interrupted, killed or cannot work: what was there stays, and a sentence says what is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from images import BASE, ROOT, SUBSTITUTES, SYSTEM_CA, Built, build, podkiln

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.engine
INTERRUPTED = 130


@pytest.fixture
def out(built: Built, tmp_path: Path) -> Path:
    """An output folder with a finished image in it."""
    shutil.copytree(built.out / "lazy", tmp_path / "dist" / "lazy")
    return tmp_path / "dist"


def listing(out: Path) -> dict[str, bytes]:
    """Return what is in a folder: small files with their bytes, blobs by name."""
    return {
        str(path.relative_to(out)): b"" if "blobs" in path.parts else path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def stop_in_the_middle(out: Path, number: signal.Signals) -> int:
    """Start a build, and send it a signal once it exports: Ctrl-C's, or that of a machine out of memory."""
    argv = [str(ROOT / "build.py"), "--variant", "lazy", *SUBSTITUTES]
    argv += ["--ca-bundle", str(SYSTEM_CA), "--out", str(out)]
    with subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        timer = threading.Timer(240, process.kill)
        timer.start()
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if "exporting layers" in line:
                break
        else:
            pytest.fail(f"it never exported:\n{seen[-3000:]}")
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # a terminal sends it to all of the foreground
        else:
            process.send_signal(number)
        rest = process.stderr.read()
        process.wait()
        timer.cancel()
    assert "Traceback" not in rest
    return process.returncode


def test_an_interrupted_build_leaves_the_old_image_as_it_was(out: Path) -> None:
    before = listing(out)
    assert stop_in_the_middle(out, signal.SIGINT) == INTERRUPTED
    after = listing(out)
    assert {name: after.get(name) for name in before if "/image/" in name} == {
        name: data for name, data in before.items() if "/image/" in name
    }
    assert not list(out.rglob("*.partial")) + list(out.rglob(".*.next")) + list(out.rglob(".*.old"))


def test_the_run_after_a_killed_one_works(built: Built, out: Path) -> None:
    before = listing(out)
    assert stop_in_the_middle(out, signal.SIGKILL) == -signal.SIGKILL
    assert (out / "lazy/image/index.json").read_bytes() == before["lazy/image/index.json"]
    again = build(["lazy"], out)
    assert again.images["lazy"].digest == built.images["lazy"].digest
    assert not list(out.rglob("*.partial")) + list(out.rglob(".*.next")) + list(out.rglob(".*.old"))


def last_words(stderr: str) -> str:
    """Return what podkiln says itself, behind BuildKit's own words: the error and its hint."""
    return stderr[stderr.rindex("podkiln: ") :]


def test_a_base_that_cannot_be_reached_names_the_way_out(tmp_path: Path) -> None:
    base = "127.0.0.1:1/nowhere@sha256:" + "0" * 64
    options = ["--variant", "lazy", *SUBSTITUTES[2:], "--base", base, "--out", str(tmp_path / "dist")]
    done = podkiln(*options)
    words = last_words(done.stderr)
    assert done.returncode == 11
    assert words.splitlines()[0].startswith("podkiln: The base image ")
    assert "--base bootstrap" in words
    assert f"--out {tmp_path}/dist" in words
    assert not list((tmp_path / "dist").rglob("image*"))


def test_a_lock_that_wheels_do_not_fit_fails_in_one_sentence(tmp_path: Path) -> None:
    """A wheel whose hash is not the locked one is not installed."""
    wheels = tmp_path / "requirements"
    shutil.copytree(ROOT / "tests/fixtures/requirements", wheels)
    locked = (wheels / "libraries.txt").read_text()
    (wheels / "libraries.txt").write_text(locked.replace("sha256:0", "sha256:1"))
    options = [
        *BASE,
        "--source",
        f"comfyui={ROOT}/tests/contract_comfyui",
        "--source",
        f"requirements={wheels}",
        "--source",
        "nodes=none",
    ]
    done = podkiln("--variant", "lazy", *options, "--ca-bundle", SYSTEM_CA, "--out", tmp_path / "dist")
    words = last_words(done.stderr)
    assert done.returncode == 9
    assert "Hash mismatch" in done.stderr
    assert "BuildKit ended with exit code 1" in words
    assert not list((tmp_path / "dist").rglob("image*"))


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--source", "comfyui=/nowhere"], 11, "there is no folder /nowhere"),
        (["--source", "comfy=."], 2, "there is no input 'comfy'"),
        (["--base", "Not An Image"], 2, "is not an image name"),
        (["--builder", "nobody"], 8, "There is no buildx builder 'nobody'"),
        (["--push"], 2, "--push needs a registry"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    tmp_path: Path, options: list[str], code: int, says: str
) -> None:
    done = podkiln("--variant", "lazy", *options, "--out", tmp_path / "dist")
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert says in done.stderr
    assert not (tmp_path / "dist").exists()
