"""Parameters in words, as other programs write them into PNG files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMED: Final = {
    "num_inference_steps": "Steps",
    "scheduler": "Sampler",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "model": "Model",
}
_APART: Final = frozenset({"prompt", "negative_prompt", "width", "height"})


def described(parameters: Mapping[str, Any]) -> str:
    """Return the lines that stable-diffusion-webui began: prompt, negative prompt, and the rest in one line.

    Programs that read pictures' parameters know them. Source: its modules/infotext_utils.py.
    """
    lines = [_text(parameters.get("prompt"))]
    if negative := _text(parameters.get("negative_prompt")):
        lines.append(f"Negative prompt: {negative}")
    rest = [f"{name}: {parameters[key]}" for key, name in _NAMED.items() if key in parameters]
    if {"width", "height"} <= parameters.keys():
        rest.append(f"Size: {parameters['width']}x{parameters['height']}")
    rest += [
        f"{key}: {_text(value)}"
        for key, value in parameters.items()
        if key not in _NAMED.keys() | _APART and value is not None
    ]
    return "\n".join([*lines, ", ".join(rest)])


def _text(value: Any) -> str:
    if value is None:
        return ""
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
