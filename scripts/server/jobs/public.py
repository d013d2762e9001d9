"""The model as clients see it: no path of this machine is in its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from server.generation.request import Model, ModelInfo

_PATHS: Final = ("/", "./", "../", "~")


class Public:
    """A model as clients see it: one that was loaded from a path is named by the path's last part."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.schema = model.schema
        self.generate = model.generate

    @property
    def info(self) -> ModelInfo:
        """What is served."""
        info = self._model.info
        if not info.id.startswith(_PATHS):
            return info
        name = PurePosixPath(info.id.rstrip("/")).name
        return replace(info, id=name.removesuffix(".safetensors") or "model")
