"""A custom node for bench/gpu.py: conditioning of random numbers, in place of an 11 GB text encoder."""

from __future__ import annotations

from typing import Any, ClassVar

import torch


class RandomConditioning:
    """What a text encoder would return, (1, 512, width), and CLIP-L's (1, 768); float32.

    `width` is 4096 of UMT5-XXL, T5-XXL and HunyuanVideo's Llama, 3584 of Qwen2.5-VL 7B, and 15360 of the
    three layers of Mistral Small that FLUX.2 reads.
    """

    CATEGORY = "bench"
    FUNCTION = "make"
    RETURN_TYPES = ("CONDITIONING",)
    _INPUTS: ClassVar[dict[str, Any]] = {
        "required": {"seed": ("INT", {"default": 0, "min": 0, "max": 2**31})},
        "optional": {"width": ("INT", {"default": 4096, "min": 1, "max": 2**15})},
    }

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """Return ComfyUI's description of the inputs."""
        return cls._INPUTS

    def make(self, seed: int, width: int = 4096) -> tuple[list[Any]]:
        """Return the conditioning."""
        generator = torch.Generator().manual_seed(seed)
        pooled = torch.randn(1, 768, generator=generator)
        return ([[torch.randn(1, 512, width, generator=generator), {"pooled_output": pooled}]],)


NODE_CLASS_MAPPINGS = {"BenchRandomConditioning": RandomConditioning}
