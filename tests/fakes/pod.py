"""A pod as far as fetching goes: its folders, its models.json, and `fetch` run in it as a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podkiln.config import model_types

if TYPE_CHECKING:
    from servers.hub import Hub
    from servers.hub_content import HubFile

SCRIPTS = Path(__file__).parents[2] / "scripts"
CHUNK = 64 * 1024
FOLDERS = ("checkpoints", "loras", "vae", "text_encoders", "controlnet", "upscale_models", "embeddings")


def row(file: HubFile, source: dict[str, Any], folder: str = "checkpoints", **changes: Any) -> dict[str, Any]:
    """Return the row of models.json for a file on the hub."""
    known = {"name": file.name, "size": file.size, "sha256": file.sha256}
    what = {"precision": None, "pickle": False, "optional": False}
    return {"folder": folder, **known, **what, "source": source, **changes}


def huggingface(file: HubFile, repo: str = "org/repo", revision: str | None = None) -> dict[str, Any]:
    """Return the source of a file in a repository."""
    return {"kind": "huggingface", "repo": repo, "revision": revision, "path": file.path}


class Pod:
    """The folders lie below `root`; several pods may share a `workspace`."""

    def __init__(self, root: Path, hub: Hub, workspace: Path | None = None) -> None:
        self.run = root / "run"
        self.image = root / "image"
        self.workspace = workspace or root / "workspace"
        self.models = self.workspace / "models"
        self.hub = hub
        self.root = root
        for folder in (self.run, self.image, self.workspace):
            folder.mkdir(parents=True, exist_ok=True)

    def offer(self, models: dict[str, list[dict[str, Any]]], enabled: list[str] | None = None) -> None:
        """Write models.json, and decision.json with the enabled ones (all unless given)."""
        entries = [{"id": name, "files": files} for name, files in models.items()]
        (self.image / "models.json").write_text(json.dumps({"schema": 1, "models": entries}))
        places = {folder: [folder] for folder in FOLDERS} | {"diffusion_models": ["diffusion_models", "unet"]}
        (self.image / "folders.json").write_text(json.dumps({"schema": 1, "folders": places}))
        (self.image / "model-types.json").write_text(json.dumps(model_types.to_json()))
        chosen = models if enabled is None else enabled
        decision = {"models": [{"id": name, "enabled": name in chosen} for name in models]}
        (self.run / "decision.json").write_text(json.dumps(decision))

    def environment(self, **changes: str) -> dict[str, str]:
        """Return what the process sees; PATH aside, nothing of this machine."""
        return {
            "PATH": os.environ["PATH"],
            "PODKILN_ROOT": str(self.image),
            "PODKILN_RUN": str(self.run),
            "PODKILN_BAKED": str(self.root / "baked"),
            "PODKILN_VOLUME": str(self.root / "volume"),
            "PODKILN_FETCH_CHUNK": str(CHUNK),
            "WORKSPACE": str(self.workspace),
            "HF_ENDPOINT": self.hub.url,
            "CIVITAI_ENDPOINT": self.hub.url,
            **changes,
        }

    def start(
        self, *arguments: str, prefix: tuple[str, ...] = (), settings: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start `fetch`."""
        return subprocess.Popen(
            [*prefix, sys.executable, "-I", "-S", str(SCRIPTS), "fetch", *arguments],
            env=self.environment(**(settings or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def fetch(
        self, *arguments: str, prefix: tuple[str, ...] = (), settings: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Run `fetch` to its end; returns the exit code and what it said."""
        with self.start(*arguments, prefix=prefix, settings=settings) as process:
            said = process.communicate(timeout=60)[0]
        return process.returncode, said

    def state(self) -> dict[str, Any]:
        """Return what the fetch that wrote last says: fetch.json, or that of one by hand."""
        last = max(self.run.glob("fetch*.json"), key=lambda path: path.stat().st_mtime_ns)
        record = json.loads(last.read_text())
        assert isinstance(record, dict)
        return record

    def left_over(self) -> list[str]:
        """Return what lies in the staging folders besides records."""
        return [
            p.name for p in self.workspace.rglob(".podkiln/*") if p.suffix in {".part", ".state", ".lock"}
        ]
