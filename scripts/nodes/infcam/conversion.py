"""Frames between ComfyUI, where they are floats in 0..1, and the process, where they are 8 bits in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from pathlib import Path


def save(frames: Any, path: Path) -> None:
    """Write frames, [frames, height, width, channels]."""
    np.save(path, frames[..., :3].clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy())


def load(path: Path) -> Any:
    """Return the frames of a file."""
    return torch.from_numpy(np.load(path)).float().div(255)
