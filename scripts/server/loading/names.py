"""What a LoRA is called in requests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from server.generation.loras import plain_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.weights.model_files import Resolved

_STEM: Final = re.compile(r"(?:pytorch_lora_weights|adapter_model|model|lora)(?:\.safetensors|\.sft)?")
"""Names of files that say nothing: such a LoRA is called by its repository."""


def adapter_name(resolved: Resolved, taken: Mapping[str, Any]) -> str:
    """Return the stem of a LoRA's file, or its repository's name where that says nothing; unique."""
    stem = resolved.model.pieces[0].path.rpartition("/")[2]
    if _STEM.fullmatch(stem):
        stem = str(resolved.model.source.get("repo", stem)).rpartition("/")[2]
    return unique(plain_name(stem), taken)


def unique(name: str, taken: Mapping[str, Any]) -> str:
    """Return a name that is not taken."""
    number, found = 2, name
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    return found
