"""What kind of model a .safetensors file holds, from the names of its tensors, and where that belongs.

The names are those by which ComfyUI 0.33.0 itself tells models apart (comfy/model_detection.py, sd.py,
lora.py, controlnet.py, clip_vision.py, the nodes that load), and those that upscalers have. The first row of
the table that fits decides, so what others may contain stands first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pod.wishes.header import Header


@dataclass(frozen=True)
class Kind:
    """A kind of model: what it is called, and its folder; None where ComfyUI itself has none."""

    what: str
    folder: str | None


LORA = Kind("a LoRA", "loras")
EMBEDDING = Kind("an embedding", "embeddings")
CHECKPOINT = Kind("a checkpoint", "checkpoints")
DIFFUSION_MODEL = Kind("a bare diffusion model", "diffusion_models")
TEXT_ENCODER = Kind("a text encoder", "text_encoders")
CLIP_VISION = Kind("a CLIP vision model", "clip_vision")
VAE = Kind("a VAE", "vae")
PREVIEW_VAE = Kind("a small VAE for previews", "vae_approx")
CONTROLNET = Kind("a ControlNet", "controlnet")
MODEL_PATCH = Kind("a model patch", "model_patches")
STYLE_MODEL = Kind("a style model", "style_models")
UPSCALE_MODEL = Kind("an upscale model", "upscale_models")
LATENT_UPSCALE_MODEL = Kind("a latent upscale model", "latent_upscale_models")
GLIGEN = Kind("a GLIGEN model", "gligen")
AUDIO_ENCODER = Kind("an audio encoder", "audio_encoders")
HYPERNETWORK = Kind("a hypernetwork", "hypernetworks")
MOTION_MODULE = Kind("a motion module of AnimateDiff", None)
IP_ADAPTER = Kind("an IP-Adapter", None)
DETECTION = Kind("a detection model", None)

# CivitAI's types of models and of single files, in lower case. What a "Checkpoint" is, its tensors say: on
# CivitAI bare diffusion models are called so, too. "Other" may be anything.
CIVITAI: Mapping[str, Kind] = {
    "checkpoint": CHECKPOINT,
    "unet": DIFFUSION_MODEL,
    "lora": LORA,
    "locon": LORA,
    "dora": LORA,
    "textualinversion": EMBEDDING,
    "hypernetwork": HYPERNETWORK,
    "controlnet": CONTROLNET,
    "upscaler": UPSCALE_MODEL,
    "vae": VAE,
    "textencoder": TEXT_ENCODER,
    "text encoder": TEXT_ENCODER,
    "clip": TEXT_ENCODER,
    "clipvision": CLIP_VISION,
    "motionmodule": MOTION_MODULE,
    "detection": DETECTION,
}
NO_MODELS = frozenset({"aestheticgradient", "poses", "wildcards", "workflows"})
# The `type` in an AIR, where it says which kind is meant.
AIR: Mapping[str, Kind] = {
    "checkpoint": CHECKPOINT,
    "lora": LORA,
    "embedding": EMBEDDING,
    "hypernet": HYPERNETWORK,
    "vae": VAE,
    "controlnet": CONTROLNET,
    "upscaler": UPSCALE_MODEL,
}

_ADAPTED = re.compile(
    r"\.lora_(?:up|down|mid)\.weight$|\.lora_[AB](?:\.\w+)?(?:\.weight)?$|[._]lora\.(?:up|down)\.weight$"
    r"|\.lora_linear_layer\.(?:up|down)\.weight$|\.hada_[wt][12](?:_[ab])?$|\.lokr_[wt][12](?:_[ab])?$"
    r"|\.oft_blocks$|\.[ab][12]\.weight$|\.(?:diff|diff_b|set_weight|w_norm|b_norm|dora_scale|reshape_weight)$"
)
_BESIDE = re.compile(r"\.(?:alpha|rank|rescale)$")

# One pattern a line, each for a whole name.
_SIGNS: tuple[tuple[Kind, str], ...] = (
    (
        EMBEDDING,
        r"""
        emb_params
        string_to_param\..*
        """,
    ),
    (MOTION_MODULE, r".*\.motion_modules\.\d+\.temporal_transformer\..*"),
    (
        IP_ADAPTER,
        r"""
        ip_adapter\..*
        image_proj\.(?:proj|latents|perceiver).*
        """,
    ),
    (
        MODEL_PATCH,
        r"""
        lllite_conditioning1\.conv1\.weight
        controlnet_blocks\.0\.y_rms\.weight
        control_all_x_embedder\.2-1\.weight
        controlnet_patch_embedding\.weight
        feature_embedder\.mid_layer_norm\.bias
        """,
    ),
    (
        CONTROLNET,
        r"""
        lora_controlnet
        (?:control_model\.)?zero_convs\.0\.0\.weight
        controlnet_cond_embedding\.conv_in\.weight
        controlnet_x_embedder\.weight
        controlnet_blocks\.0\.(?:linear\.)?weight
        control_blocks\.0\.after_proj\.weight
        after_proj_list\.18\.bias
        (?:adapter\.)?body\.0\.(?:in_conv|resnets\.0\.block1)\.weight
        """,
    ),
    (
        STYLE_MODEL,
        r"""
        redux_down\.weight
        style_embedding
        """,
    ),
    (GLIGEN, r"position_net\.null_positive_feature"),
    (
        DIFFUSION_MODEL,
        r"""
        input_blocks\.0\.0\.weight
        joint_blocks\.0\.context_block\.attn\.qkv\.weight
        double_blocks\.0\.img_attn\.norm\.key_norm\.(?:weight|scale)
        double_blocks\.0\.attn\.img_attn_qkv\.weight
        double_layers\.0\.attn\.w1q\.weight
        double_stream_layers\.0\..*
        txt_in\.individual_token_refiner\.blocks\.0\.norm1\.weight
        head\.modulation
        transformer_blocks\.0\.attn\.(?:norm_added_[qk]|add_[qk]_proj|norm_q|to_q)\.weight
        adaln_single\.emb\.timestep_embedder\.linear_1\.bias
        time_caption_embed\.timestep_embedder\.linear_1\.bias
        visual_transformer_blocks\.0\.cross_attention\.key_norm\.weight
        blocks\.block0\.blocks\.0\.block\.attn\.to_q\.0\.weight
        blocks\.0\.(?:norm1\.linear|mlp\.layer1|attn1\.k_norm)\.weight
        (?:t_block|cap_embedder|clf)\.1\.weight
        (?:mlp_t5\.0|caption_projection\.0\.linear)\.weight
        (?:t5_yproj|latent_in|genre_embedder|txtfusion\.projector|x_embedder\.proj1)\.weight
        transformer\.rotary_pos_emb\.inv_freq
        time_embedding\.linear_1\.weight
        """,
    ),
    (
        TEXT_ENCODER,
        r"""
        (?:\w+\.)?model\.(?:language_model\.)?layers\.0\.(?:self_attn\.[kq]_proj|input_layernorm)\..*
        (?:\w+\.)?model\.(?:language_model\.)?layers\.0\.(?:post_attention_layernorm|linear_attn)\..*
        (?:\w+\.)*encoder\.block\.0\.layer\.0\.SelfAttention\.k\.weight
        model\.encoder\.layers\.0\.(?:mixer\.Wqkv|pre_self_attn_layernorm)\.weight
        layers\.0\.self_attn\.(?:sinks|q_proj\.weight)
        """,
    ),
    (
        PREVIEW_VAE,
        r"""
        taesd_decoder\..*
        decoder\.22\.bias
        (?:encoder|decoder)\.layers\.\d+\.conv\.0\.weight
        1\.conv\.0\.weight
        """,
    ),
    (
        VAE,
        r"""
        (?:first_stage_model\.|vae\.)?(?:encoder|decoder)\.conv_in(?:_x_t|\.conv)?\.(?:weight|bias)
        (?:first_stage_model\.|vae\.)?(?:encoder|decoder)\.(?:up|down)_blocks\.0\.(?:resnets|res_blocks)\.0\..*
        (?:first_stage_model\.|vae\.)?decoder\.(?:middle\.0\.residual\.0\.gamma|unpatcher3d\.wavelets)
        (?:decoder\.)?blocks\.2\.blocks\.3\.stack\.5\.weight
        decoder\.layers\.1\.layers\.0\.beta
        vquantizer\.codebook\.weight
        geo_decoder\.cross_attn_decoder\.ln_1\.bias
        pixel_space_vae
        vocoder\.(?:backbone\.channel_layers\.0\.0\.bias|resblocks\.0\.convs1\.0\.weight)
        """,
    ),
    (
        AUDIO_ENCODER,
        r"""
        wav2vec2\.encoder\.layer_norm\.bias
        model\.encoder\.embed_positions\.weight
        """,
    ),
    (
        LATENT_UPSCALE_MODEL,
        r"""
        up\.0\.block\.0\.conv1\.conv\.weight
        post_upsample_res_blocks\.0\.conv2\.bias
        """,
    ),
    (
        UPSCALE_MODEL,
        r"""
        model\.1\.sub\.0\.RDB1\.conv1\.0\.weight
        RRDB_trunk\.0\.RDB1\.conv1\.weight
        body\.0\.(?:rdb1\.conv1\.)?weight
        layers\.0\.residual_group\.blocks\.0\..*
        block_1\.c1_r\..*
        feats\.0\.weight
        """,
    ),
)
# Where a diffusion model may begin, alone or in a checkpoint (unet_prefix_from_state_dict).
_PREFIX = r"(?:model\.diffusion_model\.|diffusion_model\.|model\.model\.|model\.|net\.)?"


def _rule(kind: Kind, signs: str) -> re.Pattern[str]:
    start = _PREFIX if kind is DIFFUSION_MODEL else ""
    return re.compile(rf"^{start}(?:{'|'.join(signs.split())})$", re.MULTILINE)


_RULES = tuple((_rule(kind, signs), kind) for kind, signs in _SIGNS)
_CONDITIONER = re.compile(
    r"^(?:first_stage_model|vae|cond_stage_model|conditioner|text_encoders)\.", re.MULTILINE
)
_TEXT_TOWER = re.compile(
    r"^(?:\w+\.)*text_model\.encoder\.layers\.0\.|^transformer\.resblocks\.0\.", re.MULTILINE
)
_IMAGE_TOWER = re.compile(
    r"^(?:\w+\.)*vision_model\.encoder\.layers\.0\.|^visual\.transformer\.resblocks\.0\."
    r"|^encoder\.layer\.0\.layer_scale1\.lambda1$|^layer\.0\.mlp\.gate_proj\.weight$",
    re.MULTILINE,
)
_EMBEDDED = frozenset({"clip_l", "clip_g", "t5xxl", "qwen25_7b", "umt5xxl"})


def of(header: Header) -> Kind | None:
    """Return what a file is; None where its tensors do not say, or say two things at once."""
    names = header.tensors.keys()
    if names and names <= _EMBEDDED:
        return EMBEDDING
    if _is_lora(header):
        return LORA
    text = "\n".join(names)
    kind = next((kind for rule, kind in _RULES if rule.search(text)), None)
    if kind is DIFFUSION_MODEL and _CONDITIONER.search(text):
        return CHECKPOINT
    if kind is not None:
        return kind
    towers = (bool(_TEXT_TOWER.search(text)), bool(_IMAGE_TOWER.search(text)))
    return {(True, False): TEXT_ENCODER, (False, True): CLIP_VISION}.get(towers)


def _is_lora(header: Header) -> bool:
    """Tell adapters by what most of their tensors are called, and else by who trained them."""
    names = [name for name in header.tensors if not _BESIDE.search(name)]
    adapted = sum(1 for name in names if _ADAPTED.search(name))
    if "lora_controlnet" in header.tensors:
        return False
    if names and adapted * 2 > len(names):
        return True
    said = header.metadata.get("modelspec.architecture", "").endswith("/lora")
    return adapted > 0 and (said or "ss_network_module" in header.metadata)
