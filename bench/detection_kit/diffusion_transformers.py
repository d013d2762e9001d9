"""The heads of diffusion transformers: FLUX and what came of it, Wan, Lumina, and those that stand alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from detection_kit.comfyui_models import clip_l, joined, scaled, tensors, vae
from detection_kit.stable_diffusion import WHOLE

if TYPE_CHECKING:
    from detection_kit.shapes import Maker, Shapes

_STREAMS = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "axes_dim": [16, 56, 56],
    "qkv_bias": True,
}
_FLUX_BLOCKS = {
    **_STREAMS,
    "depth": 19,
    "depth_single_blocks": 38,
    "theta": 10000,
    "patch_size": 2,
    "txt_ids_dims": [],
}
FLUX = {**_FLUX_BLOCKS, "guidance_embed": True}
_FLUX2 = {
    **FLUX,
    "in_channels": 128,
    "out_channels": 128,
    "vec_in_dim": None,
    "patch_size": 1,
    "mlp_ratio": 3.0,
    "axes_dim": [32, 32, 32, 32],
    "theta": 2000,
    "qkv_bias": False,
    "global_modulation": True,
    "mlp_silu_act": True,
    "ops_bias": False,
    "txt_ids_dims": [3],
}
_FLUX2_DEV = {"hidden_size": 6144, "num_heads": 48, "depth": 8, "depth_single_blocks": 48}
_FLUX2_KLEIN_4B = {"hidden_size": 3072, "num_heads": 24, "depth": 5, "depth_single_blocks": 20}
_CHROMA = {
    **_FLUX_BLOCKS,
    "in_channels": 64,
    "out_channels": 64,
    "vec_in_dim": None,
    "in_dim": 64,
    "out_dim": 3072,
    "hidden_dim": 5120,
    "n_layers": 5,
}
HUNYUAN = {
    **_STREAMS,
    "depth": 20,
    "depth_single_blocks": 40,
    "theta": 256,
    "patch_size": [1, 2, 2],
    "guidance_embed": True,
    "byt5": False,
    "meanflow": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
    "meanflow_sum": False,
}
WAN14 = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "out_dim": 16}
_WAN1 = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30, "out_dim": 16}
_WAN5 = {"dim": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 30, "out_dim": 48}
_LUMINA = {"patch_size": 2, "in_channels": 16, "qk_norm": True, "axes_lens": [300, 512, 512]}
_LUMINA2 = {
    **_LUMINA,
    "dim": 2304,
    "cap_feat_dim": 2304,
    "n_layers": 26,
    "n_heads": 24,
    "n_kv_heads": 8,
    "axes_dims": [32, 32, 32],
    "ffn_dim_multiplier": 4.0,
}
_Z_IMAGE = {  # of Lumina's class in ComfyUI
    **_LUMINA,
    "dim": 3840,
    "cap_feat_dim": 2560,
    "n_layers": 30,
    "n_heads": 30,
    "n_kv_heads": 30,
    "axes_dims": [32, 48, 48],
    "ffn_dim_multiplier": 8.0 / 3.0,
    "z_image_modulation": True,
    "pad_tokens_multiple": 32,
}
_QWEN_IMAGE = {
    "patch_size": 2,
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 60,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 3584,
    "axes_dims_rope": (16, 56, 56),
}
_HIDREAM = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 16,
    "num_single_layers": 32,
    "attention_head_dim": 128,
    "num_attention_heads": 20,
    "caption_channels": [4096, 4096],
    "text_emb_dim": 2048,
    "num_routed_experts": 4,
    "num_activated_experts": 2,
    "axes_dims_rope": [64, 32, 32],
    "max_resolution": [128, 128],
    "llama_layers": list(range(48)),
}

_COSMOS_7B = {  # comfy/model_detection.py, Cosmos of 4096
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "concat_padding_mask": True,
    "block_config": "FA-CA-MLP",
    "model_channels": 4096,
    "num_blocks": 28,
    "num_heads": 32,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": False,
    "pos_emb_interpolation": "crop",
    "block_x_format": "THWBD",
    "affline_emb_norm": True,
    "use_adaln_lora": True,
    "adaln_lora_dim": 256,
    "extra_per_block_abs_pos_emb": True,
    "extra_per_block_abs_pos_emb_type": "learnable",
}
_OMNIGEN2 = {  # comfy/model_detection.py, Omnigen2
    "axes_dim_rope": [40, 40, 40],
    "axes_lens": [1024, 1664, 1664],
    "hidden_size": 2520,
    "in_channels": 16,
    "num_attention_heads": 21,
    "num_kv_heads": 7,
    "num_layers": 32,
    "num_refiner_layers": 2,
    "patch_size": 2,
    "text_feat_dim": 2048,
    "timestep_scale": 1000.0,
}


def _flux(config: dict[str, Any], **change: Any) -> Maker:
    """Return a maker of FLUX; its norms are called `scale` in its maker's files, and ComfyUI reads both."""
    make = tensors("flux.model.Flux", **{**config, **change})

    def named(torch: Any) -> Shapes:
        found = make(torch)
        return {re.sub(r"_norm\.weight$", "_norm.scale", name): shape for name, shape in found.items()}

    return named


def _wan(kind: str, channels: int, size: dict[str, int], name: str = "WanModel", **more: Any) -> Maker:
    """Return a maker of a Wan transformer."""
    return tensors(f"wan.model.{name}", model_type=kind, in_dim=channels, **size, **more)


HEADS: dict[str, Maker] = {
    "flux1-dev": _flux(FLUX),
    "flux1-schnell": _flux(FLUX, guidance_embed=False),
    "flux1-fill": _flux(FLUX, in_channels=96),
    "flux1-depth": _flux(FLUX, in_channels=32),
    "flux1-fp8-checkpoint": joined({WHOLE: _flux(FLUX), "vae.": vae(16), "text_encoders.clip_l.": clip_l}),
    "flux1-dev-scaled": scaled(_flux(FLUX)),
    "flux2-dev": _flux(_FLUX2, **_FLUX2_DEV, context_in_dim=15360),
    "flux2-klein-4b": _flux(_FLUX2, **_FLUX2_KLEIN_4B, context_in_dim=7680, guidance_embed=False),
    "chroma": tensors("chroma.model.Chroma", **_CHROMA),
    "auraflow": tensors("aura.mmdit.MMDiT", cond_seq_dim=2048, max_seq=2304),
    "z-image": tensors("lumina.model.NextDiT", **_Z_IMAGE),
    "lumina2": tensors("lumina.model.NextDiT", **_LUMINA2),
    "qwen-image": tensors("qwen_image.model.QwenImageTransformer2DModel", **_QWEN_IMAGE),
    "wan-t2v-1.3b": _wan("t2v", 16, _WAN1),
    "wan-t2v-14b": _wan("t2v", 16, WAN14),
    "wan-i2v-14b": _wan("i2v", 36, WAN14),
    "wan22-i2v-a14b": _wan("t2v", 36, WAN14),
    "wan22-ti2v-5b": _wan("t2v", 48, _WAN5),
    "wan-vace-14b": _wan("vace", 16, WAN14, "VaceWanModel", vace_layers=8, vace_in_dim=96),
    "wan-t2v-14b-scaled": scaled(_wan("t2v", 16, WAN14)),
    "wan-s2v-14b": _wan("s2v", 16, WAN14, "WanModel_S2V"),
    "hunyuan-video": tensors("hunyuan_video.model.HunyuanVideo", **HUNYUAN),
    "ltx-video": tensors("lightricks.model.LTXVModel", in_channels=128, num_layers=28),
    "ltx2-19b": joined({WHOLE: tensors("lightricks.av_model.LTXAVModel")}),
    "cosmos1-t2w-7b": joined({"net.": tensors("cosmos.model.GeneralDIT", **_COSMOS_7B)}),
    "omnigen2": tensors("omnigen.omnigen2.OmniGen2Transformer2DModel", **_OMNIGEN2),
    "hidream": tensors("hidream.model.HiDreamImageTransformer2DModel", **_HIDREAM),
}
