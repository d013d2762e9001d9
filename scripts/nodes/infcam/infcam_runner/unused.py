"""Modules that upstream's code imports and InfCam never calls: empty ones take their place.

modelscope downloads models, wandb reports trainings to a server, matplotlib and cv2 draw for evaluations;
with what they need themselves they are larger than all else in InfCam's environment.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from types import ModuleType
from typing import Any, Final

UNUSED: Final = {
    "cv2": (),
    "matplotlib": (),
    "matplotlib.pyplot": (),
    "modelscope": ("snapshot_download",),
    "wandb": (),
}
"""Each with the names that are imported from it."""


def install() -> None:
    """Put an empty module in the place of each that is not there."""
    with contextlib.suppress(ImportError):
        importlib.import_module("transformers")  # before: it looks for cv2, and is not to find the empty one
    missing = [name for name in UNUSED if importlib.util.find_spec(name.partition(".")[0]) is None]
    for name in missing:
        members = UNUSED[name]
        module = ModuleType(name)
        module.__path__ = []
        for member in members:
            setattr(module, member, _refuse)
        sys.modules[name] = module


def _refuse(*_: Any, **__: Any) -> None:
    """Stand for something that has no business in a pod."""
    raise RuntimeError("upstream's code wanted to download a model by itself, which a pod does not do")
