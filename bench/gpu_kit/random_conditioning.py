"""A custom node for bench/gpu.py: conditioning of random numbers, in place of an 11 GB text encoder."""

from __future__ import annotations

from typing import Any, ClassVar

import torch


class RandomConditioning:
    """What a UMT5-XXL or T5-XXL text encoder would return, (1, 512, 4096), and CLIP-L's (1, 768); float32."""

    CATEGORY = "bench"
    FUNCTION = "make"
    RETURN_TYPES = ("CONDITIONING",)
    _INPUTS: ClassVar[dict[str, Any]] = {
        "required": {"seed": ("INT", {"default": 0, "min": 0, "max": 2**31})}
    }

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """Return ComfyUI's description of the inputs."""
        return cls._INPUTS

    def make(self, seed: int) -> tuple[list[Any]]:
        """Return the conditioning."""
        generator = torch.Generator().manual_seed(seed)
        pooled = torch.randn(1, 768, generator=generator)
        return ([[torch.randn(1, 512, 4096, generator=generator), {"pooled_output": pooled}]],)


NODE_CLASS_MAPPINGS = {"BenchRandomConditioning": RandomConditioning}
