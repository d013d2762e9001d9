"""The model as clients see it: no path of this machine is in its name, nor in what it says."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from pod.util.secret_variables import hidden
from server.collection.reference import LOCAL

if TYPE_CHECKING:
    from server.generation.request import Model, ModelInfo

_PATH: Final = re.compile(r"(?<![\w:/.])/(?:[\w.@+-]+/)+([\w.@+-]*)")


def plain(error: Exception) -> str:
    """Return what an error says, without paths of this server and the values of secrets."""
    return hidden(_PATH.sub(r"\1", str(error)), os.environ)


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
        if not info.id.startswith(LOCAL):
            return info
        name = PurePosixPath(info.id.rstrip("/")).name
        return replace(info, id=name.removesuffix(".safetensors") or "model")
