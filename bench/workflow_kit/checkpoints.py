"""Files of random weights as ComfyUI's own loaders read them. Runs in ComfyUI's Python, after with_comfyui().

ComfyUI counts blocks to know a transformer, so FLUX.1 and FLUX.2 have two narrow ones of each kind. UNets,
VAEs and text encoders it knows by the shapes of one size, so those are of full size; how Mistral is made to
fit stands at mistral().
"""

from __future__ import annotations

import base64
import json
import sys
from typing import TYPE_CHECKING, Any, Final

from gpu_kit import weights

if TYPE_CHECKING:
    from pathlib import Path

BLOCK: Final = 1 << 20
"""Numbers that are really random; larger tensors repeat them, each from another place on."""
MAPPED: Final = 32 << 20
"""Bytes from which on malloc always asks the kernel, which gives zeros (most of glibc's M_MMAP_THRESHOLD)."""
MISTRAL_LAYERS: Final = 30
"""Of 40: FLUX.2's file leaves out those that are not read."""


def write(torch: Any, tensors: dict[str, Any], out: Path) -> None:
    """Write a safetensors file, fast: its large matrices repeat a block of random numbers."""
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(7))

    def fill(torch: Any, name: str, tensor: Any, generator: Any) -> memoryview:
        if tensor.dtype == torch.uint8:
            made = tensor
        elif tensor.ndim <= 1 or not tensor.is_floating_point() or "gamma" in name:
            return weights.random_bytes(torch, name, tensor, generator)
        else:
            made = repeated(torch, block, tensor.shape, tensor.dtype)
        return memoryview(made.contiguous().view(-1).view(torch.uint8).numpy())

    weights.write(torch, tensors, out, fill)


def repeated(torch: Any, block: Any, shape: Any, dtype: Any) -> Any:
    """Return a matrix of a block's numbers, with the gain of weights.random_bytes."""
    count = shape.numel()
    scaled = block.mul(0.7 / (count / shape[0]) ** 0.5).to(dtype)
    start = int(torch.randint(BLOCK, (1,)))
    # Bytes, since not every dtype of 8 bits can be rolled and repeated.
    octets = scaled.view(torch.uint8).view(BLOCK, -1).roll(start, 0)
    times = -(-count // BLOCK)
    return octets.repeat(times, 1)[:count].contiguous().view(-1).view(dtype).view(shape)


def t5xxl(torch: Any) -> dict[str, Any]:
    """Return the tensors of T5-XXL's encoder in 8 bits: 4.9 GB."""
    import comfy.text_encoders.sd3_clip

    model = comfy.text_encoders.sd3_clip.T5XXLModel(device=torch.device("meta"), dtype=torch.float16)
    return {name: value.to(torch.float8_e4m3fn) for name, value in model.transformer.state_dict().items()}


def flux1(*, guidance: bool) -> Any:
    """Return a maker of a FLUX.1 in one file: [schnell], or [dev], which has guidance."""

    def make(torch: Any) -> dict[str, Any]:
        import comfy.sd1_clip

        clip = weights.half(
            torch, comfy.sd1_clip.SDClipModel(device=torch.device("meta"), dtype=torch.float16)
        )
        parts = {
            "model.diffusion_model.": weights.flux_small(torch, guidance=guidance),
            "vae.": weights.vae(torch, 16),
            "text_encoders.clip_l.": clip,
            "text_encoders.t5xxl.transformer.": t5xxl(torch),
        }
        return {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}

    return make


def mistral(torch: Any) -> dict[str, Any]:
    """Return the tensors of Mistral Small 3 in 8 bits, as FLUX.2 has it, and a tokenizer of single bytes.

    Of 17 GB, the 15 GB of its large matrices are left out. ComfyUI says so ("clip missing"), and what it
    keeps for them is memory that was never written: zeros that take no room. What is left of the layers is
    their attention.
    """
    import comfy.ops
    from comfy.text_encoders.llama import Mistral3Small24B

    configuration = {"num_hidden_layers": MISTRAL_LAYERS, "final_norm": False}
    dtype = torch.float8_e4m3fn
    model = Mistral3Small24B(configuration, dtype, torch.device("meta"), comfy.ops.disable_weight_init)
    tensors = {
        name: value.to(dtype)
        for name, value in model.state_dict().items()
        if "embed_tokens" in name or value.numel() < MAPPED
    }
    return {**tensors, "tekken_model": torch.frombuffer(bytearray(_tekken()), dtype=torch.uint8)}


def _tekken() -> bytes:
    """Return a tokenizer in the form of Mistral's, of bytes and of what FLUX.2's prompt needs."""
    special = {1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 11: "<pad>", 17: "[SYSTEM_PROMPT]"}
    special[18] = "[/SYSTEM_PROMPT]"
    return json.dumps(
        {
            "config": {"default_num_special_tokens": 1000, "default_vocab_size": 131072},
            "vocab": [
                {"rank": each, "token_bytes": base64.b64encode(bytes([each])).decode()} for each in range(256)
            ],
            "special_tokens": [{"rank": rank, "token_str": text} for rank, text in special.items()],
        }
    ).encode()


def motion_module(torch: Any, out: Path, nodes: Path) -> None:
    """Write AnimateDiff's module for SDXL, full size, with the class of AnimateDiff-Evolved: a pickle."""
    sys.path.insert(0, str(nodes / "animatediff-evolved"))
    from animatediff import motion_module_ad as animatediff

    place = "motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.pos_encoder.pe"
    seen = {f"{side}_blocks.2.{place}": torch.zeros(1, 32, 320) for side in ("down", "up")}
    info = animatediff.AnimateDiffInfo("SDXL", "AnimateDiff", "v1", out.name)
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(7))
    state = {}
    for name, value in animatediff.AnimateDiffModel(seen, info).state_dict().items():
        if value.ndim > 1 and not name.endswith("pos_encoder.pe"):
            state[name] = repeated(torch, block, value.shape, torch.float16)
        elif value.ndim <= 1:
            state[name] = torch.full_like(value, float(name.endswith("weight")), dtype=torch.float16)
        else:
            state[name] = value
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, out)


KINDS: Final = {
    "sdxl": weights.sdxl,
    "sdxl-vae": lambda torch: weights.vae(torch, 4),
    "flux1-dev": flux1(guidance=True),
    "flux1-schnell": flux1(guidance=False),
    "flux2": weights.flux2_small,
    "flux2-vae": weights.flux2_vae,
    "mistral": mistral,
    "t5xxl": t5xxl,
    "svd": weights.svd,
}
