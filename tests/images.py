"""Images for tests, built by the command itself, with what CI cannot reach replaced at its edge."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podkiln.util import cache_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("baked", "consumer", "datacenter", "lazy", "prosumer")
TINY = ROOT / "tests" / "fixtures" / "variants" / "tiny.yaml"
SYSTEM_CA = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
COMFYUI = ROOT / "tests" / "contract_comfyui"
REQUIREMENTS = ROOT / "tests" / "fixtures" / "requirements"

# What CI cannot reach or does not want to move: debian:trixie-slim, ComfyUI's repository, 4 GB of wheels.
BASE = ("--base", "bootstrap")
# The nodes' repositories neither; those that a test is about it describes itself (NODES).
NODES = (*BASE, "--source", f"comfyui={COMFYUI}", "--source", f"requirements={REQUIREMENTS}")
SUBSTITUTES = (*NODES, "--source", "nodes=none")


@dataclass(frozen=True)
class Image:
    """One built, pushed and loaded image."""

    variant: str
    name: str
    layout: Path
    report: dict[str, Any]

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return str(self.report["digest"])

    @property
    def by_digest(self) -> str:
        """The name under which a registry gives exactly this image."""
        repository = self.name.rpartition(":")[0]
        return f"{repository}@{self.digest}"

    def manifest(self) -> dict[str, Any]:
        """Return the manifest in its layout."""
        return dict(json.loads(self.blob(self.digest).read_bytes()))

    def config(self) -> dict[str, Any]:
        """Return the image's config in its layout."""
        return dict(json.loads(self.blob(self.manifest()["config"]["digest"]).read_bytes()))

    def blob(self, digest: str) -> Path:
        """Return the file of a blob."""
        return self.layout / "blobs" / digest.replace(":", "/")


@dataclass(frozen=True)
class Built:
    """What one run of the command made, and all that it printed."""

    out: Path
    images: dict[str, Image]
    log: str


def own_cache(folder: Path) -> Path:
    """Make a cache folder that has the base image, and nothing else; returns it, for XDG_CACHE_HOME."""
    base = cache_folder.path() / cache_folder.BASE
    (folder / "podkiln").mkdir(parents=True)
    (folder / "podkiln" / cache_folder.BASE).symlink_to(base)
    return folder


def podkiln(
    *arguments: str | Path, root: Path = ROOT, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ./build.py as a user does."""
    argv = [str(root / "build.py"), *map(str, arguments)]
    return subprocess.run(
        argv, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )


def build(
    variants: Sequence[str],
    out: Path,
    *options: str | Path,
    root: Path = ROOT,
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
    requirements: Path = REQUIREMENTS,
) -> Built:
    """Build variants into a folder; options come on top of the substitutes, of which one may be another."""
    report = out.parent / f"{out.name}.report.json"
    substitutes = [each.replace(str(REQUIREMENTS), str(requirements)) for each in SUBSTITUTES]
    own: list[str | Path] = [*substitutes, "--out", out, "--report", report, *options]
    if "--ca-bundle" not in own:
        own += ["--ca-bundle", SYSTEM_CA]
    done = podkiln("--variant", ",".join(variants), *own, root=root, cwd=cwd, env=env)
    assert done.returncode == 0, f"./build.py ended with {done.returncode}:\n{done.stderr[-6000:]}"
    data = json.loads(report.read_text())
    rows = data["reports"] if len(variants) > 1 else [data]
    images = {
        row["variant"]: Image(row["variant"], row["image"], out / row["variant"] / "image", row)
        for row in rows
    }
    return Built(out, images, done.stdout + done.stderr)
