"""The heads of Stable Diffusion's files: checkpoints with a UNet, and the transformers of SD 3 and 3.5."""

from __future__ import annotations

from typing import Any

from detection_kit.comfyui_models import comfy_class, tensors
from detection_kit.shapes import Maker, Shapes, of_state
from gpu_kit import weights

WHOLE = "model.diffusion_model."
"""What stands before the names of the diffusion model's tensors in a checkpoint."""

# What the UNets of SD 2 and of the SDXL refiner have beside `weights._unet`.
_LINEAR = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
}
_SD2_UNET = {
    **_LINEAR,
    "adm_in_channels": None,
    "context_dim": 1024,
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}
_REFINER_UNET = {
    **_LINEAR,
    "num_classes": "sequential",
    "adm_in_channels": 2560,
    "context_dim": 1280,
    "model_channels": 384,
    "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
    "transformer_depth_middle": 4,
    "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
}
# Distilled of SDXL's: fewer layers, no middle block (comfy/model_detection.py, Segmind_Vega).
_VEGA_UNET = {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
    "context_dim": 2048,
    "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": -1,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
}
# x4-upscaling.yaml of Stability-AI/stablediffusion; comfy/supported_models.py, SD_X4Upscaler.
_X4_UNET = {
    "in_channels": 7,
    "model_channels": 256,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 2, 4],
    "num_heads": 8,
    "num_classes": 1000,
    "adm_in_channels": None,
    "use_linear_in_transformer": True,
    "disable_self_attentions": [True, True, True, False],
    "context_dim": 1024,
    "transformer_depth": [0, 0, 1, 1, 1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1],
}


def _of_kit(kind: str, channels: int | None = None) -> Maker:
    """Return a maker of a checkpoint of gpu_kit's, whose UNet's first layer may take other channels."""

    def make(torch: Any) -> Shapes:
        found = of_state(getattr(weights, kind)(torch))
        first = f"{WHOLE}input_blocks.0.0.weight"
        if channels:
            found[first] = (found[first][0], channels, 3, 3)
        return found

    return make


def _checkpoint(supported: str, text: str, unet: dict[str, Any]) -> Maker:
    """Return a maker of a checkpoint: ComfyUI's description of it, its text encoder, and its UNet."""

    def make(torch: Any) -> Shapes:
        encoder = comfy_class(text)(device="meta", dtype=torch.float16)
        config = {**weights._unet(torch), **unet}
        return of_state(
            weights._checkpoint(torch, config, comfy_class(f"supported_models.{supported}"), encoder)
        )

    return make


def _sd2(channels: int = 4) -> Maker:
    """Return a maker of Stable Diffusion 2.1: OpenCLIP's text encoder, a context of 1024."""
    return _checkpoint("SD20", "text_encoders.sd2_clip.SD2ClipModel", {**_SD2_UNET, "in_channels": channels})


def _sd3(depth: int, patches: int, **more: Any) -> Maker:
    """Return a maker of Stable Diffusion 3 and 3.5."""
    context = {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 64 * depth}}
    return tensors(
        "modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper",
        input_size=None,
        patch_size=2,
        in_channels=16,
        depth=depth,
        adm_in_channels=2048,
        context_embedder_config=context,
        num_patches=patches,
        pos_embed_max_size=round(patches**0.5),
        pos_embed_scaling_factor=None,
        **more,
    )


HEADS: dict[str, Maker] = {
    "sd15": _of_kit("sd15"),
    "sd15-inpainting": _of_kit("sd15", channels=9),
    "instruct-pix2pix": _of_kit("sd15", channels=8),
    "sd21": _sd2(),
    "sd2-inpainting": _sd2(9),
    "sdxl": _of_kit("sdxl"),
    "sdxl-inpainting": _of_kit("sdxl", channels=9),
    "sdxl-edit": _of_kit("sdxl", channels=8),
    "sdxl-refiner": _checkpoint("SDXLRefiner", "sdxl_clip.SDXLRefinerClipModel", _REFINER_UNET),
    "segmind-vega": _checkpoint("SDXL", "sdxl_clip.SDXLClipModel", _VEGA_UNET),
    "sd-x4-upscaler": _checkpoint("SD_X4Upscaler", "text_encoders.sd2_clip.SD2ClipModel", _X4_UNET),
    "sd3-medium": _sd3(24, 36864),
    "sd35-medium": _sd3(24, 147456, qk_norm="rms", x_block_self_attn_layers=list(range(13))),
    "sd35-large": _sd3(38, 36864, qk_norm="rms"),
}
