"""The process within ComfyUI: the card is freed for it, its steps are shown, and the stop button ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.model_management as management
import comfy.utils

from . import process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def run(argv: list[str], environ: Mapping[str, str], folder: Path) -> None:
    """Run the process. Raises NodeError where it fails, and what ComfyUI raises when it is stopped."""
    management.unload_all_models()
    management.soft_empty_cache()
    bar = comfy.utils.ProgressBar(1)
    interrupted = management.throw_exception_if_processing_interrupted
    process.run(argv, environ, folder, bar.update_absolute, interrupted)
