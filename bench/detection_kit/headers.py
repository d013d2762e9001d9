"""Write the heads of files for the tests of detection: names and shapes of tensors, of upstream's classes.

    python bench/detection_kit/headers.py COMFYUI_DIR tests/fixtures/detection/headers.json

Runs in a Python with torch, diffusers, transformers and peft, and what ComfyUI requires. ComfyUI 0.33.0
builds the models under the names that their makers' files have, diffusers 0.42.1 builds LoRAs; all on the
meta device, so nothing is downloaded and no memory is taken. LoRAs of kohya's are named by its rule: the
module's name with underscores for dots (networks/lora.py of sd-scripts 48d368fa).
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from gpu_kit import weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Shapes = dict[str, tuple[int, ...]]
WHOLE = "model.diffusion_model."


def shapes(state: Mapping[str, Any]) -> Shapes:
    """Return names and shapes of a state."""
    return {name: tuple(value.shape) for name, value in state.items()}


def compact(found: Shapes) -> dict[str, Any]:
    """Put tensors whose names differ in numbers alone into one line: `blocks.{0-39}.x`."""
    groups: dict[tuple[str, tuple[int, ...]], list[tuple[int, ...]]] = defaultdict(list)
    for name, shape in found.items():
        numbers = tuple(int(each) for each in re.findall(r"\d+", name))
        groups[re.sub(r"\d+", "{}", name), shape].append(numbers)
    lines = {}
    for (template, shape), at in groups.items():
        spans = [(min(each), max(each)) for each in zip(*at, strict=True)]
        whole = set(product(*(range(low, high + 1) for low, high in spans)))
        several = [at] if whole == set(at) else [[each] for each in at]
        for group in several:
            spans = [(min(each), max(each)) for each in zip(*group, strict=True)]
            words = [str(low) if low == high else f"{{{low}-{high}}}" for low, high in spans]
            lines[template.format(*words)] = list(shape)
    return lines


def shorter(name: str, made: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a head as what differs from an earlier one, where that is little."""
    mine = made[name]
    for other, theirs in made.items():
        if other == name:
            break
        more = {key: shape for key, shape in mine.items() if theirs.get(key) != shape}
        lacking = [key for key in theirs if key not in mine]
        if len(more) + len(lacking) < len(mine) // 2:
            return {"like": other, "without": lacking, "tensors": more}
    return {"tensors": mine}


def indexes() -> dict[str, dict[str, list[str]]]:
    """Return what model_index.json says of the components of each pipeline, by the types of its signature."""
    import inspect
    import typing

    import diffusers

    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(each for each in dir(diffusers) if each.endswith("Pipeline")):
        cls = getattr(diffusers, name)
        try:
            hints = typing.get_type_hints(cls.__init__)
            parameters = inspect.signature(cls.__init__).parameters
        except (NameError, TypeError, ImportError, AttributeError, ValueError):
            continue
        rows = {}
        for parameter in parameters:
            options = typing.get_args(hints.get(parameter)) or (hints.get(parameter),)
            types = [each for each in options if isinstance(each, type) and each is not type(None)]
            where = types[0].__module__.split(".") if types else [""]
            if where[0] in {"diffusers", "transformers"}:
                own = where[0] == "diffusers" and where[1] == "pipelines" and len(where) > 3
                rows[parameter] = [where[2] if own else where[0], types[0].__name__]
        found[name] = rows
    return found


# --- checkpoints


def unet_checkpoint(kind: str, **change: int) -> Callable[[Any], Shapes]:
    """Return a maker of a checkpoint of Stable Diffusion whose UNet's first layer takes other channels."""

    def make(torch: Any) -> Shapes:
        found = shapes(getattr(weights, kind)(torch))
        first = f"{WHOLE}input_blocks.0.0.weight"
        if change:
            found[first] = (found[first][0], change["channels"], 3, 3)
        return found

    return make


def sd2(torch: Any, channels: int = 4) -> Shapes:
    """Return the tensors of Stable Diffusion 2.1: OpenCLIP's text encoder, a context of 1024."""
    import comfy.supported_models
    import comfy.text_encoders.sd2_clip

    config = {
        **weights._unet(torch),
        "adm_in_channels": None,
        "num_res_blocks": [2, 2, 2, 2],
        "context_dim": 1024,
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "channel_mult": [1, 2, 4, 4],
        "num_head_channels": 64,
        "transformer_depth_middle": 1,
        "use_linear_in_transformer": True,
        "in_channels": channels,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    }
    text = comfy.text_encoders.sd2_clip.SD2ClipModel(device="meta", dtype=torch.float16)
    return shapes(weights._checkpoint(torch, config, comfy.supported_models.SD20, text))


def refiner(torch: Any) -> Shapes:
    """Return the tensors of the SDXL refiner."""
    import comfy.sdxl_clip
    import comfy.supported_models

    config = {
        **weights._unet(torch),
        "num_classes": "sequential",
        "adm_in_channels": 2560,
        "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth_middle": 4,
        "use_linear_in_transformer": True,
        "context_dim": 1280,
        "num_head_channels": 64,
        "model_channels": 384,
        "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
    }
    text = comfy.sdxl_clip.SDXLRefinerClipModel(device="meta", dtype=torch.float16)
    return shapes(weights._checkpoint(torch, config, comfy.supported_models.SDXLRefiner, text))


# --- transformers


def built(module: str, name: str, **config: Any) -> Callable[[Any], Shapes]:
    """Return a maker of one of ComfyUI's classes."""

    def make(torch: Any) -> Shapes:
        import importlib

        import comfy.ops

        cls = getattr(importlib.import_module(f"comfy.ldm.{module}"), name)
        model = cls(**config, device="meta", dtype=torch.float16, operations=comfy.ops.disable_weight_init)
        return shapes(model.state_dict())

    return make


def flux(*, guidance: bool = True, channels: int = 16, **more: Any) -> Callable[[Any], Shapes]:
    """Return a maker of FLUX.1; its norms are called `scale` in its maker's files, and ComfyUI reads both."""
    config = {
        "in_channels": channels,
        "out_channels": 16,
        "vec_in_dim": 768,
        "context_in_dim": 4096,
        "hidden_size": 3072,
        "mlp_ratio": 4.0,
        "num_heads": 24,
        "depth": 19,
        "depth_single_blocks": 38,
        "axes_dim": [16, 56, 56],
        "theta": 10000,
        "patch_size": 2,
        "qkv_bias": True,
        "guidance_embed": guidance,
        "txt_ids_dims": [],
        **more,
    }
    make = built("flux.model", "Flux", **config)

    def named(torch: Any) -> Shapes:
        found = make(torch)
        return {re.sub(r"_norm\.weight$", "_norm.scale", name): shape for name, shape in found.items()}

    return named


def flux2(hidden: int, depth: int, single: int, context: int, *, guidance: bool) -> Callable[[Any], Shapes]:
    """Return a maker of FLUX.2."""
    return flux(
        guidance=guidance,
        channels=128,
        out_channels=128,
        vec_in_dim=None,
        context_in_dim=context,
        patch_size=1,
        hidden_size=hidden,
        num_heads=hidden // 128,
        mlp_ratio=3.0,
        depth=depth,
        depth_single_blocks=single,
        axes_dim=[32, 32, 32, 32],
        theta=2000,
        qkv_bias=False,
        global_modulation=True,
        mlp_silu_act=True,
        ops_bias=False,
        txt_ids_dims=[3],
    )


def wan(
    kind: str, dim: int, heads: int, layers: int, ffn: int, channels: int, out: int = 16, **more: Any
) -> Any:
    """Return a maker of a Wan transformer."""
    name = {"vace": "VaceWanModel"}.get(kind, "WanModel")
    return built(
        "wan.model",
        name,
        model_type=kind,
        dim=dim,
        ffn_dim=ffn,
        num_heads=heads,
        num_layers=layers,
        in_dim=channels,
        out_dim=out,
        **more,
    )


def lumina(
    dim: int, cap: int, layers: int, heads: int, kv: int, axes: list[int], ffn: float, **more: Any
) -> Any:
    """Return a maker of Lumina 2, or of Z-Image, which is of that class in ComfyUI."""
    return built(
        "lumina.model",
        "NextDiT",
        patch_size=2,
        in_channels=16,
        dim=dim,
        cap_feat_dim=cap,
        n_layers=layers,
        qk_norm=True,
        n_heads=heads,
        n_kv_heads=kv,
        axes_dims=axes,
        axes_lens=[300, 512, 512],
        ffn_dim_multiplier=ffn,
        **more,
    )


def sd3(depth: int, patches: int, **more: Any) -> Any:
    """Return a maker of Stable Diffusion 3 and 3.5."""
    side = round(patches**0.5)
    width = 64 * depth
    context = {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": width}}
    return built(
        "modules.diffusionmodules.mmdit",
        "OpenAISignatureMMDITWrapper",
        input_size=None,
        patch_size=2,
        in_channels=16,
        depth=depth,
        adm_in_channels=2048,
        context_embedder_config=context,
        num_patches=patches,
        pos_embed_max_size=side,
        pos_embed_scaling_factor=None,
        **more,
    )


def behind(make: Callable[[Any], Shapes], prefix: str) -> Callable[[Any], Shapes]:
    """Return a maker of the same tensors behind a prefix."""
    return lambda torch: {prefix + name: shape for name, shape in make(torch).items()}


def with_more(
    make: Callable[[Any], Shapes], *parts: tuple[str, Callable[[Any], Any]]
) -> Callable[[Any], Shapes]:
    """Return a maker of a file that holds other models as well, each behind a prefix."""

    def whole(torch: Any) -> Shapes:
        found = make(torch)
        for prefix, part in parts:
            found |= {prefix + name: tuple(value.shape) for name, value in part(torch).items()}
        return found

    return whole


def scaled(make: Callable[[Any], Shapes]) -> Callable[[Any], Shapes]:
    """Return a maker of ComfyUI's scaled fp8 of a file: a number beside each matrix (comfy/ops.py)."""

    def with_scales(torch: Any) -> Shapes:
        found = make(torch)
        names = [name for name, shape in found.items() if name.endswith(".weight") and len(shape) == 2]
        scales = {f"{name.removesuffix('.weight')}.scale_weight": () for name in names}
        return found | scales | {"scaled_fp8": (0,)}

    return with_scales


def clip_l(torch: Any) -> dict[str, Any]:
    """Return CLIP-L's text encoder."""
    import comfy.sd1_clip

    clip = comfy.sd1_clip.SDClipModel(device=torch.device("meta"), dtype=torch.float16)
    state: dict[str, Any] = clip.state_dict()
    return state


# --- LoRAs


def lora(
    name: str, form: str, targets: Iterable[str], config: dict[str, Any], prefix: str = "transformer."
) -> Any:
    """Return a maker of a LoRA of rank 16 on a class of diffusers.

    Args:
        name: The class.
        form: How it is written: `peft`, `kohya`, `dotted` (kohya's pairs under plain names), or `diffusers`
            (before peft).
        targets: What the names of the layers that it changes end in.
        config: Of the class; its own defaults are those of a published model for most.
        prefix: What stands before the layers' names.
    """
    ends = tuple(targets)

    def make(torch: Any) -> Shapes:
        import diffusers

        with torch.device("meta"):
            model = getattr(diffusers, name)(**config)
        return written(torch, model, form, ends, prefix)

    return make


def written(
    torch: Any, model: Any, form: str, ends: tuple[str, ...], prefix: str, called: Callable[[str], str] = str
) -> Shapes:
    """Return the tensors of a LoRA on a model; `called` makes the makers' name of a layer's."""
    found: Shapes = {}
    for own, module in model.named_modules():
        if not (own.endswith(ends) and isinstance(module, torch.nn.Linear)):
            continue
        layer = called(own)
        down, up = (16, module.in_features), (module.out_features, 16)
        if form == "peft":
            found |= {f"{prefix}{layer}.lora_A.weight": down, f"{prefix}{layer}.lora_B.weight": up}
        elif form == "dotted":
            found |= {f"{prefix}{layer}.lora_down.weight": down, f"{prefix}{layer}.lora_up.weight": up}
            found |= {f"{prefix}{layer}.alpha": ()}
        elif form == "diffusers":
            found |= {f"{prefix}{layer}.lora.down.weight": down, f"{prefix}{layer}.lora.up.weight": up}
        else:
            name = prefix + layer.replace(".", "_")
            found |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": ()}
    return found


def lora_on(
    make_model: Callable[[Any], Any],
    form: str,
    ends: Iterable[str],
    prefix: str,
    called: Callable[[str], str] = str,
) -> Any:
    """Return a maker of a LoRA on a model of ComfyUI's, whose layers have the makers' names."""
    return lambda torch: written(torch, make_model(torch), form, tuple(ends), prefix, called)


def of_tencent(name: str) -> str:
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


def module(where: str, name: str, **config: Any) -> Callable[[Any], Any]:
    """Return a maker of a model of ComfyUI's."""

    def make(torch: Any) -> Any:
        import importlib

        import comfy.ops

        cls = getattr(importlib.import_module(f"comfy.ldm.{where}"), name)
        return cls(**config, device="meta", dtype=torch.float16, operations=comfy.ops.disable_weight_init)

    return make


def lokr(make: Callable[[Any], Shapes]) -> Callable[[Any], Shapes]:
    """Return a maker of the same adapter as LyCORIS' LoKr: two factors in place of a pair."""

    def as_lokr(torch: Any) -> Shapes:
        names = [
            name.removesuffix(".lora_down.weight")
            for name in make(torch)
            if name.endswith(".lora_down.weight")
        ]
        return {f"{name}.{part}": (8, 8) for name in names for part in ("lokr_w1", "lokr_w2")}

    return as_lokr


FLUX = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "depth": 19,
    "depth_single_blocks": 38,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
WAN14 = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "out_dim": 16}
HUNYUAN = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "depth": 20,
    "depth_single_blocks": 40,
    "axes_dim": [16, 56, 56],
    "theta": 256,
    "patch_size": [1, 2, 2],
    "qkv_bias": True,
    "guidance_embed": True,
    "byt5": False,
    "meanflow": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
    "meanflow_sum": False,
}
SDXL_UNET = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD15_UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")

HEADERS: dict[str, Callable[[Any], Shapes]] = {
    "sd15": unet_checkpoint("sd15"),
    "sd15-inpainting": unet_checkpoint("sd15", channels=9),
    "instruct-pix2pix": unet_checkpoint("sd15", channels=8),
    "sd21": sd2,
    "sd2-inpainting": lambda torch: sd2(torch, 9),
    "sdxl": unet_checkpoint("sdxl"),
    "sdxl-inpainting": unet_checkpoint("sdxl", channels=9),
    "sdxl-edit": unet_checkpoint("sdxl", channels=8),
    "sdxl-refiner": refiner,
    "sd3-medium": sd3(24, 36864),
    "sd35-medium": sd3(24, 147456, qk_norm="rms", x_block_self_attn_layers=list(range(13))),
    "sd35-large": sd3(38, 36864, qk_norm="rms"),
    "flux1-dev": flux(),
    "flux1-schnell": flux(guidance=False),
    "flux1-fill": flux(channels=96),
    "flux1-depth": flux(channels=32),
    "flux1-fp8-checkpoint": with_more(
        behind(flux(), WHOLE),
        ("vae.", lambda torch: weights.vae(torch, 16)),
        ("text_encoders.clip_l.", clip_l),
    ),
    "flux1-dev-scaled": scaled(flux()),
    "flux2-dev": flux2(6144, 8, 48, 15360, guidance=True),
    "flux2-klein-4b": flux2(3072, 5, 20, 7680, guidance=False),
    "chroma": built(
        "chroma.model",
        "Chroma",
        in_channels=64,
        out_channels=64,
        context_in_dim=4096,
        hidden_size=3072,
        mlp_ratio=4.0,
        num_heads=24,
        depth=19,
        depth_single_blocks=38,
        axes_dim=[16, 56, 56],
        theta=10000,
        patch_size=2,
        qkv_bias=True,
        in_dim=64,
        out_dim=3072,
        hidden_dim=5120,
        n_layers=5,
        txt_ids_dims=[],
        vec_in_dim=None,
    ),
    "auraflow": built("aura.mmdit", "MMDiT", cond_seq_dim=2048, max_seq=2304),
    "z-image": lumina(
        3840, 2560, 30, 30, 30, [32, 48, 48], 8.0 / 3.0, z_image_modulation=True, pad_tokens_multiple=32
    ),
    "lumina2": lumina(2304, 2304, 26, 24, 8, [32, 32, 32], 4.0),
    "qwen-image": built(
        "qwen_image.model",
        "QwenImageTransformer2DModel",
        patch_size=2,
        in_channels=64,
        out_channels=16,
        num_layers=60,
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=3584,
        axes_dims_rope=(16, 56, 56),
    ),
    "wan-t2v-1.3b": wan("t2v", 1536, 12, 30, 8960, 16),
    "wan-t2v-14b": wan("t2v", 5120, 40, 40, 13824, 16),
    "wan-i2v-14b": wan("i2v", 5120, 40, 40, 13824, 36),
    "wan22-i2v-a14b": wan("t2v", 5120, 40, 40, 13824, 36),
    "wan22-ti2v-5b": wan("t2v", 3072, 24, 30, 14336, 48, 48),
    "wan-vace-14b": wan("vace", 5120, 40, 40, 13824, 16, vace_layers=8, vace_in_dim=96),
    "wan-t2v-14b-scaled": scaled(wan("t2v", 5120, 40, 40, 13824, 16)),
    "wan-s2v-14b": built("wan.model", "WanModel_S2V", model_type="s2v", in_dim=16, **WAN14),
    "hunyuan-video": built("hunyuan_video.model", "HunyuanVideo", **HUNYUAN),
    "ltx-video": built("lightricks.model", "LTXVModel", in_channels=128, num_layers=28),
    "hidream": built(
        "hidream.model",
        "HiDreamImageTransformer2DModel",
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=16,
        num_single_layers=32,
        attention_head_dim=128,
        num_attention_heads=20,
        caption_channels=[4096, 4096],
        text_emb_dim=2048,
        num_routed_experts=4,
        num_activated_experts=2,
        axes_dims_rope=[64, 32, 32],
        max_resolution=[128, 128],
        llama_layers=list(range(48)),
    ),
    "stable-cascade-c": built("cascade.stage_c", "StageC"),
    "vae-sd": lambda torch: shapes(weights.vae(torch, 4)),
    "clip-l": lambda torch: shapes(clip_l(torch)),
    "lora-flux1-peft": lora("FluxTransformer2DModel", "peft", ATTENTION, {"guidance_embeds": True}),
    "lora-flux1-kohya": lora_on(
        module("flux.model", "Flux", **FLUX),
        "kohya",
        ("img_attn.qkv", "img_attn.proj", "img_mlp.0", "img_mod.lin", "modulation.lin", "linear1", "linear2"),
        "lora_unet_",
    ),
    "lora-hunyuan-video-kohya": lora_on(
        module("hunyuan_video.model", "HunyuanVideo", **HUNYUAN),
        "kohya",
        ("img_attn.qkv", "img_attn.proj", "img_mlp.0", "img_mod.lin"),
        "lora_unet_",
        of_tencent,
    ),
    "lora-sdxl-kohya": lora("UNet2DConditionModel", "kohya", ATTENTION, SDXL_UNET, "lora_unet_"),
    "lora-sdxl-peft": lora("UNet2DConditionModel", "peft", ATTENTION, SDXL_UNET, "unet."),
    "lora-sd15-kohya": lora("UNet2DConditionModel", "kohya", ATTENTION, SD15_UNET, "lora_unet_"),
    "lora-sd15-diffusers": lora("UNet2DConditionModel", "diffusers", ATTENTION, SD15_UNET, "unet."),
    "lora-sd15-lokr": lokr(lora("UNet2DConditionModel", "kohya", ATTENTION, SD15_UNET, "lora_unet_")),
    "lora-sd3-peft": lora(
        "SD3Transformer2DModel",
        "peft",
        (*ATTENTION, "add_k_proj", "add_q_proj"),
        {
            "num_layers": 24,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
        },
    ),
    "lora-qwen-image-peft": lora(
        "QwenImageTransformer2DModel",
        "peft",
        (*ATTENTION, "add_k_proj", "net.0.proj"),
        {},
        "diffusion_model.",
    ),
    "lora-qwen-image-lightning": lora(
        "QwenImageTransformer2DModel", "dotted", (*ATTENTION, "add_k_proj", "net.0.proj", "mod.1"), {}, ""
    ),
    "lora-wan-t2v-14b-comfy": lora_on(
        module("wan.model", "WanModel", model_type="t2v", in_dim=16, **WAN14),
        "peft",
        (".q", ".k", ".v", ".o"),
        "diffusion_model.",
    ),
    "lora-wan-i2v-14b-comfy": lora_on(
        module("wan.model", "WanModel", model_type="i2v", in_dim=36, **WAN14),
        "peft",
        (".q", ".k", ".v", ".o", "k_img"),
        "diffusion_model.",
    ),
    "lora-z-image-comfy": lora("ZImageTransformer2DModel", "peft", ATTENTION, {}, "diffusion_model."),
    "lora-ltx-video-peft": lora("LTXVideoTransformer3DModel", "peft", ATTENTION, {}),
    "lora-cogvideox-5b-peft": lora(
        "CogVideoXTransformer3DModel", "peft", ATTENTION, {"num_attention_heads": 48, "num_layers": 42}
    ),
}


def main(root: str, out: str) -> int:
    """Write the file; returns the number of heads that could not be made."""
    torch = weights.with_comfyui(root)
    made: dict[str, dict[str, Any]] = {}
    failed = 0
    with torch.no_grad():
        for name, make in HEADERS.items():
            try:
                found = make(torch)
            except Exception as error:  # noqa: BLE001 - each is said, and the rest is made
                failed += 1
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
                continue
            made[name] = compact(found)
            print(f"{name}: {len(found)} tensors, {len(made[name])} lines", flush=True)
    heads = {name: shorter(name, made) for name in made}
    text = json.dumps({"schema": 1, "headers": heads, "pipelines": indexes()}, indent=0)
    flat = re.sub(r"\[\n([^\[\]{}]*)\n\]", lambda hit: f"[{hit[1].replace(chr(10), ' ')}]", text)
    Path(out).write_text(flat + "\n", encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
