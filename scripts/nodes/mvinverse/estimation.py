"""Upstream's model, loaded and run: the same steps as its inference.py, on tensors instead of files."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from . import sizes
from .pod_facts import NodeError

if TYPE_CHECKING:
    from pathlib import Path

MAPS: Final = ("albedo", "normal", "roughness", "metallic", "shading")


@dataclass(frozen=True)
class Inputs:
    """Views of one scene, and the longest side at which the model looks at them."""

    images: Any
    """Floats in 0..1, [views, height, width, channels]."""
    longest: int = sizes.LONGEST


def load(code: Path, weights: Path, config: Path) -> Any:
    """Return upstream's model with its weights, on the CPU.

    Raises NodeError where the file is not the model's, or cannot be read.
    """
    if str(code) not in sys.path:
        sys.path.append(str(code))
    model = importlib.import_module("mvinverse.models.mvinverse").MVInverse(**_settings(config))
    try:
        state = load_file(weights)
    except Exception as err:  # safetensors has errors of its own, and promises none
        raise NodeError(f"{weights} cannot be read as safetensors: {err}") from err
    missing = model.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise NodeError(
            f"{weights} is not MVInverse's: it lacks {len(missing)} tensors, {missing[0]} among them."
        )
    return model.eval()


def _settings(config: Path) -> dict[str, Any]:
    """Return the arguments with which the model was made. Raises NodeError."""
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise NodeError(f"{config} cannot be read as JSON: {err}") from err
    if not isinstance(found, dict):
        raise NodeError(f"{config} is not a JSON object.")
    return found


def prepare(inputs: Inputs) -> Any:
    """Return what the model takes, [views, 3, height, width]: through Pillow, as upstream resizes."""
    height, width = inputs.images.shape[1:3]
    size = sizes.target(width, height, inputs.longest)
    eight_bits = inputs.images[..., :3].clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
    views = [np.asarray(Image.fromarray(each).resize(size)) for each in eight_bits]
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float().div(255)


def estimate(model: Any, inputs: Inputs, device: Any) -> tuple[Any, ...]:
    """Return the maps in the order of MAPS, each floats in 0..1, [views, height, width, 3], on the CPU.

    Args:
        model: As `load` returns it, with its weights where `device` can use them.
        inputs: The views.
        device: Where it runs; half precision on CUDA alone, as upstream has it.
    """
    views = prepare(inputs).to(device)
    on_cuda = torch.device(device).type == "cuda"
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.float16, enabled=on_cuda):
        found = model(views[None])
    maps = {name: found[name][0].float().cpu() for name in MAPS}
    maps["normal"] = maps["normal"] * 0.5 + 0.5  # as upstream writes it into a PNG
    return tuple(each.expand(*each.shape[:3], 3).contiguous() for each in maps.values())
