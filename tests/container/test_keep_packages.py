"""Packages kept in a registry of one's own: a build from them alone, and what it comes to."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from images import COMFYUI, SYSTEM_CA, own_cache, podkiln

from podkiln.lock import kept_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podkiln.build.base_image import BaseLayout

pytestmark = pytest.mark.engine
VARIANT = """\
extends: lazy
title: Small
runtime:
  python:
    requirements: small.in
    layers:
      - {name: libraries, why: All of it, packages: ["*"]}
  jupyter: null
models:
  offer: []
"""
DEAD = "http://127.0.0.1:1"


class Site:
    """A variant with few packages, and a machine with a cache of its own that knows the base."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.variant = folder / "small.yaml"
        self.variant.write_text(VARIANT)
        (folder / "small.in").write_text("idna\nmarkupsafe\n")
        self.kept = folder / "small.locks" / kept_image.FILE
        monkeypatch.setenv("XDG_CACHE_HOME", str(own_cache(folder / "cache")))
        # What BuildKit's steps find for a proxy: with this one they reach nobody.
        config = {"proxies": {"default": {"httpProxy": DEAD, "httpsProxy": DEAD, "noProxy": ""}}}
        (folder / "offline").mkdir()
        (folder / "offline" / "config.json").write_text(json.dumps(config))

    def lock(self, *options: str) -> subprocess.CompletedProcess[str]:
        done = podkiln("lock", "--variant", self.variant, "--ca-bundle", SYSTEM_CA, *options)
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    def out(self, offline: bool) -> Path:
        return self.folder / ("kept" if offline else "mirrors")

    def build(self, base: str, *, offline: bool) -> subprocess.CompletedProcess[str]:
        options: list[str | Path] = [
            "--base",
            base,
            "--source",
            f"comfyui={COMFYUI}",
            "--source",
            "nodes=none",
            "--out",
            self.out(offline),
        ]
        options += [] if offline else ["--ca-bundle", SYSTEM_CA]
        env = {"DOCKER_CONFIG": str(self.folder / "offline")} if offline else {}
        options += ["--no-cache"] if offline else []
        return podkiln("--variant", self.variant, *options, env=env)

    def no_step_reaches_anybody(self, base: BaseLayout) -> None:
        """Have a step ask a mirror, offline as `build` is: what a build takes then is of the kept alone."""
        (self.folder / "Dockerfile").write_text(
            "FROM base\nRUN apt-get -o Acquire::Retries=0 update --error-on=any\n"
        )
        done = subprocess.run(
            [
                *("docker", "--config", self.folder / "offline", "buildx", "build", "--no-cache"),
                *("--progress=plain", f"--build-context=base=oci-layout://{base.path}@{base.digest}"),
                self.folder,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert f"Could not connect to {DEAD.removeprefix('http://')}" in done.stderr, done.stderr

    def report(self, *, offline: bool) -> dict[str, Any]:
        return dict(json.loads((self.out(offline) / "small/report.json").read_text()))


def test_a_build_from_what_is_kept_needs_nothing_else_and_comes_to_the_same_image(
    bootstrap_base: BaseLayout,
    registry: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, host = Site(tmp_path, monkeypatch), registry()
    site.lock()
    done = site.build("bootstrap", offline=False)
    assert done.returncode == 0, done.stderr[-3000:]
    from_mirrors = site.report(offline=False)["digest"]
    site.no_step_reaches_anybody(bootstrap_base)

    assert "are not there yet" in site.lock("--keep", f"{host}/me/kept", "--base", "bootstrap").stderr
    named = site.kept.read_bytes()
    again = site.lock("--keep", f"{host}/me/kept", "--base", "bootstrap")
    assert "are not there yet" not in again.stderr
    assert site.kept.read_bytes() == named

    done = site.build(f"{host}/me/kept@{bootstrap_base.digest}", offline=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert site.report(offline=True)["digest"] == from_mirrors
