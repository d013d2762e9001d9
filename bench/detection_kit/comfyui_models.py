"""Models of ComfyUI's classes on the meta device, and files that are made of several."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from detection_kit.shapes import Maker, Shapes, of_state
from gpu_kit import weights

ModelMaker = Callable[[Any], Any]
"""Makes a model, given torch."""


def comfy_class(path: str) -> Any:
    """Return the class at a dotted path below `comfy`."""
    where, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(f"comfy.{where}"), name)


def model(path: str, **config: Any) -> ModelMaker:
    """Return a maker of a model of one of the classes below comfy/ldm."""

    def make(torch: Any) -> Any:
        cls = comfy_class(f"ldm.{path}")
        operations = comfy_class("ops.disable_weight_init")
        return cls(**config, device="meta", dtype=torch.float16, operations=operations)

    return make


def tensors(path: str, **config: Any) -> Maker:
    """Return a maker of the tensors of such a model."""
    make = model(path, **config)
    return lambda torch: of_state(make(torch).state_dict())


def vae(channels: int) -> Maker:
    """Return a maker of the tensors of a VAE with so many latent channels."""
    return lambda torch: of_state(weights.vae(torch, channels))


def clip_l(torch: Any) -> Shapes:
    """Return the tensors of CLIP-L's text encoder."""
    clip = comfy_class("sd1_clip.SDClipModel")(device=torch.device("meta"), dtype=torch.float16)
    return of_state(clip.state_dict())


def joined(parts: dict[str, Maker]) -> Maker:
    """Return a maker of a file that holds several models, each behind a prefix."""
    return lambda torch: {
        prefix + name: shape for prefix, make in parts.items() for name, shape in make(torch).items()
    }


def scaled(make: Maker) -> Maker:
    """Return a maker of ComfyUI's scaled fp8 of a file: a number beside each matrix (comfy/ops.py)."""

    def with_scales(torch: Any) -> Shapes:
        found = make(torch)
        names = [name for name, shape in found.items() if name.endswith(".weight") and len(shape) == 2]
        scales = {f"{name.removesuffix('.weight')}.scale_weight": () for name in names}
        return found | scales | {"scaled_fp8": (0,)}

    return with_scales
