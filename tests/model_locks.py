"""Models in a folder and their weights lock, for tests of locking."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from descriptions import model, write

from podkiln.config import catalog
from podkiln.lock.resolve import weights
from podkiln.lock.schema import LockedFile, WeightsLock

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.lock.resolve.weights import ResolveResult


class ModelLocks:
    """Models in a folder, and their lock."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        self.lock = folder / "weights.json"

    def describe(self, name: str, *files: str) -> Path:
        return write(self.models / f"{name}.yaml", model(*files))

    def relock(self, *upgrade: str) -> ResolveResult:
        return weights.relock(self.lock, catalog.load(self.models), upgrade, start=self.lock)

    def files(self, name: str) -> tuple[LockedFile, ...]:
        return WeightsLock.model_validate_json(self.lock.read_text()).models[name]

    def only(self, name: str = "mine") -> tuple[str | None, int | None, str | None]:
        (file,) = self.files(name)
        return file.revision, file.size, file.sha256


def entry(**facts: object) -> str:
    """A file of a model, as YAML that is JSON."""
    return f"- {json.dumps({'folder': 'checkpoints', 'sha256': 'unresolved', **facts})}\n"


def from_hub(path: object = "model.safetensors", **facts: object) -> str:
    return entry(huggingface="org/repo", path=path, **facts)


def civitai(number: int | None = None, **facts: object) -> str:
    version = {"model": 45, "version": 90} | ({"file": number} if number else {})
    return entry(civitai=version, name="pony.safetensors", **facts)
