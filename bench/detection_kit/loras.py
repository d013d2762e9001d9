"""The heads of LoRAs: pairs of matrices for layers of diffusers' models, or of ComfyUI's under makers' names.

kohya's are named by its rule: the module's name with underscores for dots (networks/lora.py of sd-scripts
48d368fa).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from detection_kit import comfyui_models
from detection_kit.diffusers_models import SD15, SDXL, model
from detection_kit.diffusion_transformers import FLUX, HUNYUAN, WAN14

if TYPE_CHECKING:
    from collections.abc import Callable

    from detection_kit.comfyui_models import ModelMaker
    from detection_kit.shapes import Maker, Shapes

RANK = 16
FORMS = {  # what stands behind a layer's name: the matrix down, the one up, and the scale's
    "peft": (".lora_A.weight", ".lora_B.weight"),
    "diffusers": (".lora.down.weight", ".lora.up.weight"),  # before peft
    "dotted": (".lora_down.weight", ".lora_up.weight", ".alpha"),  # kohya's pairs under plain names
    "kohya": (".lora_down.weight", ".lora_up.weight", ".alpha"),
}


def _lora(
    make_model: ModelMaker,
    form: str,
    ends: tuple[str, ...],
    prefix: str = "transformer.",
    called: Callable[[str], str] = str,
) -> Maker:
    """Return a maker of a LoRA on a model.

    Args:
        make_model: Makes the model.
        form: How it is written, one of FORMS.
        ends: What the names of the layers that it changes end in.
        prefix: What stands before the layers' names.
        called: Makes the makers' name of a layer's.
    """

    def make(torch: Any) -> Shapes:
        found: Shapes = {}
        for own, module in make_model(torch).named_modules():
            if own.endswith(ends) and isinstance(module, torch.nn.Linear):
                layer = called(own).replace(".", "_") if form == "kohya" else called(own)
                sizes = ((RANK, module.in_features), (module.out_features, RANK), ())
                found |= {prefix + layer + end: size for end, size in zip(FORMS[form], sizes, strict=False)}
        return found

    return make


def _lokr(make: Maker) -> Maker:
    """Return a maker of the same adapter as LyCORIS' LoKr: two factors in place of a pair."""

    def as_lokr(torch: Any) -> Shapes:
        end = ".lora_down.weight"
        names = [name.removesuffix(end) for name in make(torch) if name.endswith(end)]
        return {f"{name}.{part}": (8, 8) for name in names for part in ("lokr_w1", "lokr_w2")}

    return as_lokr


def _of_tencent(name: str) -> str:
    """Return HunyuanVideo's own name of a layer: the reverse of what ComfyUI's loader makes of it.

    comfy/supported_models.py, HunyuanVideo.process_unet_state_dict.
    """
    for theirs, own in (
        ("_mod.lin", "_mod.linear"),
        ("_attn.qkv", "_attn_qkv"),
        ("_attn.proj", "_attn_proj"),
        ("modulation.lin", "modulation.linear"),
        ("mlp.0", "mlp.fc1"),
        ("mlp.2", "mlp.fc2"),
    ):
        name = re.sub(rf"{re.escape(theirs)}(?=$|\.)", own, name)
    return name


_FLUX = comfyui_models.model("flux.model.Flux", **FLUX)
_HUNYUAN = comfyui_models.model("hunyuan_video.model.HunyuanVideo", **HUNYUAN)
_WAN_T2V = comfyui_models.model("wan.model.WanModel", model_type="t2v", in_dim=16, **WAN14)
_WAN_I2V = comfyui_models.model("wan.model.WanModel", model_type="i2v", in_dim=36, **WAN14)
_SD3 = model(
    "SD3Transformer2DModel",
    num_layers=24,
    num_attention_heads=24,
    joint_attention_dim=4096,
    caption_projection_dim=1536,
)
_QWEN_IMAGE = model("QwenImageTransformer2DModel")
_Z_IMAGE = model("ZImageTransformer2DModel")
_LTX_VIDEO = model("LTXVideoTransformer3DModel")
_COGVIDEOX_5B = model("CogVideoXTransformer3DModel", num_attention_heads=48, num_layers=42)

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_QWEN_LAYERS = (*_ATTENTION, "add_k_proj", "net.0.proj")
_IMAGE_STREAM = ("img_attn.qkv", "img_attn.proj", "img_mlp.0", "img_mod.lin")
_FLUX_LAYERS = (*_IMAGE_STREAM, "modulation.lin", "linear1", "linear2")
_WAN_LAYERS = (".q", ".k", ".v", ".o")

HEADS: dict[str, Maker] = {
    "lora-flux1-peft": _lora(model("FluxTransformer2DModel", guidance_embeds=True), "peft", _ATTENTION),
    "lora-flux1-kohya": _lora(_FLUX, "kohya", _FLUX_LAYERS, "lora_unet_"),
    "lora-hunyuan-video-kohya": _lora(_HUNYUAN, "kohya", _IMAGE_STREAM, "lora_unet_", _of_tencent),
    "lora-sdxl-kohya": _lora(SDXL, "kohya", _ATTENTION, "lora_unet_"),
    "lora-sdxl-peft": _lora(SDXL, "peft", _ATTENTION, "unet."),
    "lora-sd15-kohya": _lora(SD15, "kohya", _ATTENTION, "lora_unet_"),
    "lora-sd15-diffusers": _lora(SD15, "diffusers", _ATTENTION, "unet."),
    "lora-sd15-lokr": _lokr(_lora(SD15, "kohya", _ATTENTION, "lora_unet_")),
    "lora-sd3-peft": _lora(_SD3, "peft", (*_ATTENTION, "add_k_proj", "add_q_proj")),
    "lora-qwen-image-peft": _lora(_QWEN_IMAGE, "peft", _QWEN_LAYERS, "diffusion_model."),
    "lora-qwen-image-lightning": _lora(_QWEN_IMAGE, "dotted", (*_QWEN_LAYERS, "mod.1"), ""),
    "lora-wan-t2v-14b-comfy": _lora(_WAN_T2V, "peft", _WAN_LAYERS, "diffusion_model."),
    "lora-wan-i2v-14b-comfy": _lora(_WAN_I2V, "peft", (*_WAN_LAYERS, "k_img"), "diffusion_model."),
    "lora-z-image-comfy": _lora(_Z_IMAGE, "peft", _ATTENTION, "diffusion_model."),
    "lora-ltx-video-peft": _lora(_LTX_VIDEO, "peft", _ATTENTION),
    "lora-cogvideox-5b-peft": _lora(_COGVIDEOX_5B, "peft", _ATTENTION),
}
