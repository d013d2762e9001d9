"""Tiny random models in the layouts of the real ones: made here, nothing is fetched. Needs diffusers.

    python tests/tiny_models/make.py KIND FOLDER

KIND is one of `KINDS`; a pipeline goes to FOLDER, a single file to FOLDER/NAME.safetensors or .gguf. Sizes
follow diffusers' own tests; what detection looks at in a single file (320 channels, ten layers of text
encoder, 28 blocks of LTX) is as large as there. There is no single file of a Flux transformer: diffusers'
conversion has its width, 3072, written into it, and one block of that takes 700 MB; LTX stands for that kind.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LTX_BLOCKS = 28  # what tells a single file of it
_CHARACTERS = [*range(33, 127), *range(161, 173), *range(174, 256)]


def main(argv: list[str]) -> int:
    """Make one."""
    if len(argv) != 2 or argv[0] not in KINDS:
        print(f"usage: make.py KIND FOLDER; KIND is one of {', '.join(KINDS)}", file=sys.stderr)
        return 64
    make(argv[0], Path(argv[1]))
    return 0


def make(kind: str, folder: Path) -> Path:
    """Make a model, and return its folder or file."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    made: Path = KINDS[kind](folder)
    return made


# --- pipelines


def sd15(folder: Path) -> Path:
    """Stable Diffusion 1: DDIM, 64x64."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline(
        vae=_vae([4, 8]),
        text_encoder=_clip(32, 2),
        tokenizer=_clip_tokenizer(folder),
        unet=_unet_sd(),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _saved(pipe, folder)


def _unet_sd() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        block_out_channels=(4, 8),
        layers_per_block=1,
        cross_attention_dim=32,
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


def controlnet(folder: Path) -> Path:
    """A ControlNet for `sd15`."""
    from diffusers import ControlNetModel

    model = ControlNetModel.from_unet(_unet_sd(), conditioning_embedding_out_channels=(4, 8))
    _noise(model)
    model.save_pretrained(folder)
    return folder


def vae(folder: Path) -> Path:
    """A VAE for `sd15`."""
    _vae([4, 8]).save_pretrained(folder)
    return folder


def sdxl(folder: Path) -> Path:
    """Stable Diffusion XL: Euler, 64x64; as wide where the first tensors are as the real one."""
    return _saved(_sdxl(folder), folder)


def _sdxl(folder: Path) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(320, 32, 32),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2, 2),
        projection_class_embeddings_input_dim=112,
        cross_attention_dim=96,
    )
    return StableDiffusionXLPipeline(
        vae=_vae([32, 32]),
        text_encoder=_clip(32, 2),
        text_encoder_2=_clip(64, 10, projected=True),  # by their widths the two are told apart
        tokenizer=_clip_tokenizer(folder),
        tokenizer_2=_clip_tokenizer(folder),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading"
        ),
        force_zeros_for_empty_prompt=True,
    )


def sd3(folder: Path) -> Path:
    """Stable Diffusion 3, 32x32."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    pipe = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=32,
            patch_size=1,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=64,
            out_channels=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKL(
            block_out_channels=(4,),
            latent_channels=4,
            norm_num_groups=1,
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.06,
            scaling_factor=1.5,
        ),
        text_encoder=_clip(32, 2, projected=True),
        tokenizer=_clip_tokenizer(folder),
        text_encoder_2=_clip(32, 2, projected=True),
        tokenizer_2=_clip_tokenizer(folder),
        text_encoder_3=_t5(),
        tokenizer_3=_t5_tokenizer(),
        image_encoder=None,
        feature_extractor=None,
    )
    return _saved(pipe, folder)


def flux(folder: Path) -> Path:
    """Flux.1, 16x16."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )

    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKL(
            block_out_channels=(4,),
            latent_channels=1,
            norm_num_groups=1,
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.06,
            scaling_factor=1.5,
        ),
        text_encoder=_clip(32, 2),
        tokenizer=_clip_tokenizer(folder),
        text_encoder_2=_t5(),
        tokenizer_2=_t5_tokenizer(),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
        ),
    )
    return _saved(pipe, folder)


def qwen_image(folder: Path) -> Path:
    """Qwen-Image, 32x32."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        "rope_theta": 1000000.0,
        "vocab_size": 1000,
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    tokens = {"vision_start_token_id": 1, "vision_end_token_id": 2, "image_token_id": 3, "video_token_id": 4}
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, hidden_size=16, vocab_size=1000, **tokens
    )
    pipe = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLQwenImage(
            base_dim=24,
            z_dim=4,
            dim_mult=[1, 2, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=_qwen_tokenizer(),
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=3,
            joint_attention_dim=16,
            guidance_embeds=False,
            axes_dims_rope=(8, 4, 4),
        ),
    )
    return _saved(pipe, folder)


def wan(folder: Path) -> Path:
    """Wan 2.1 text to video, 16x16, frames 4n+1."""
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )

    pipe = WanPipeline(
        vae=AutoencoderKLWan(
            base_dim=3,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ),
        text_encoder=_umt5(),
        tokenizer=_t5_tokenizer(),
        transformer=WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=32,
            freq_dim=256,
            ffn_dim=32,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )
    return _saved(pipe, folder)


def ltx(folder: Path, layers: int = 1) -> Path:
    """LTX-Video, 32x32, frames 8n+1."""
    from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline

    pipe = LTXPipeline(
        transformer=_ltx_transformer(layers),
        vae=AutoencoderKLLTXVideo(
            in_channels=3,
            out_channels=3,
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
            decoder_inject_noise=(False, False, False, False, False),
            upsample_residual=(False, False, False, False),
            upsample_factor=(1, 1, 1, 1),
            timestep_conditioning=False,
            patch_size=1,
            patch_size_t=1,
            encoder_causal=True,
            decoder_causal=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=_t5(),
        tokenizer=_t5_tokenizer(),
    )
    return _saved(pipe, folder)


def ltx_base(folder: Path) -> Path:
    """The same with as many blocks as a single file of its transformer has."""
    return ltx(folder, _LTX_BLOCKS)


def _ltx_transformer(layers: int) -> Any:
    from diffusers import LTXVideoTransformer3DModel

    return LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=layers,
        caption_channels=32,
    )


def ddpm(folder: Path) -> Path:
    """Pictures of nothing in particular, 8x8."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return _saved(DDPMPipeline(unet, DDPMScheduler()), folder)


def stable_audio(folder: Path) -> Path:
    """Stable Audio; its own scheduler wants torchsde, this one is of the same kind and does not."""
    from diffusers import (
        AutoencoderOobleck,
        EDMDPMSolverMultistepScheduler,
        StableAudioDiTModel,
        StableAudioPipeline,
        StableAudioProjectionModel,
    )

    pipe = StableAudioPipeline(
        transformer=StableAudioDiTModel(
            sample_size=4,
            in_channels=3,
            num_layers=2,
            attention_head_dim=4,
            num_key_value_attention_heads=2,
            out_channels=3,
            cross_attention_dim=4,
            time_proj_dim=8,
            global_states_input_dim=8,
            cross_attention_input_dim=4,
        ),
        scheduler=EDMDPMSolverMultistepScheduler(
            solver_order=2, prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
        ),
        vae=AutoencoderOobleck(
            encoder_hidden_size=6,
            downsampling_ratios=[1, 2],
            decoder_channels=3,
            decoder_input_channels=3,
            audio_channels=2,
            channel_multiples=[2, 4],
            sampling_rate=4,
        ),
        text_encoder=_t5(4),
        tokenizer=_t5_tokenizer(),
        projection_model=StableAudioProjectionModel(
            text_encoder_dim=4, conditioning_dim=4, min_value=0, max_value=32
        ),
    )
    return _saved(pipe, folder)


# --- single files


def sdxl_file(folder: Path) -> Path:
    """The components of `sdxl` in one file, under the names of its makers."""
    pipe = _sdxl(folder)
    tensors = {f"model.diffusion_model.{_sgm_unet(name)}": each for name, each in _state(pipe.unet)}
    tensors |= {
        f"first_stage_model.{_sgm_vae(name)}": _sgm_vae_tensor(name, each) for name, each in _state(pipe.vae)
    }
    clip = "conditioner.embedders.0.transformer."
    tensors |= {f"{clip}{_text_model(name)}": each for name, each in _state(pipe.text_encoder)}
    tensors |= _open_clip("conditioner.embedders.1.model.", pipe.text_encoder_2)
    return _file(tensors, folder / "sdxl.safetensors")


def ltx_file(folder: Path) -> Path:
    """The transformer of LTX-Video alone, in one file, under the names of its makers."""
    tensors = {f"model.diffusion_model.{name}": each for name, each in _ltx_state().items()}
    return _file(tensors, folder / "ltx.safetensors")


def ltx_gguf(folder: Path) -> Path:
    """The same in llama.cpp's numbers: layers of 8 bits where blocks of 32 fit, tables as they are."""
    import gguf

    path = folder / "ltx-q8_0.gguf"
    writer = gguf.GGUFWriter(path, "ltxv")
    for name, each in _ltx_state().items():
        values = each.float().numpy()
        packed = name.endswith(".weight") and values.ndim == 2 and values.shape[1] % 32 == 0
        kind = gguf.GGMLQuantizationType.Q8_0 if packed else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _ltx_state() -> dict[str, Any]:
    swaps = {
        "norm_q.": "q_norm.",
        "norm_k.": "k_norm.",
        "time_embed.": "adaln_single.",
        "proj_in.": "patchify_proj.",
    }
    tensors = {}
    for name, each in _state(_ltx_transformer(_LTX_BLOCKS)):
        found = name
        for ours, theirs in swaps.items():
            found = found.replace(ours, theirs) if ours != "proj_in." or found.startswith(ours) else found
        tensors[found] = each
    return tensors


def lora_peft(folder: Path) -> Path:
    """A LoRA for `sd15`, as peft and diffusers write it."""
    return _file(_lora(), folder / "peft-style.safetensors")


def lora_kohya(folder: Path) -> Path:
    """The same as kohya's scripts write it."""
    import torch

    tensors: dict[str, Any] = {}
    for name, each in _lora().items():
        layer, _, end = name.removeprefix("unet.").rpartition(".lora_")
        kohya = f"lora_unet_{layer.replace('.', '_')}"
        tensors[f"{kohya}.{'lora_down' if end.startswith('A') else 'lora_up'}.weight"] = each
        tensors[f"{kohya}.alpha"] = torch.tensor(4.0)
    return _file(tensors, folder / "kohya-style.safetensors", {"ss_base_model_version": "sd_v1"})


def _lora() -> dict[str, Any]:
    import torch

    found = {}
    for name, module in _unet_sd().named_modules():
        if re.search(r"attn[12]\.to_(?:q|k|v)$", name):
            found[f"unet.{name}.lora_A.weight"] = torch.randn(4, module.in_features)
            found[f"unet.{name}.lora_B.weight"] = torch.randn(module.out_features, 4)
    return found


def _state(model: Any) -> list[tuple[str, Any]]:
    return list(model.state_dict().items())


def _sgm_unet(name: str) -> str:
    """Return the name that a tensor of UNet2DConditionModel has in SDXL's own code; two layers a block."""
    fixed = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    stem, _, end = name.rpartition(".")
    if stem in fixed:
        return f"{fixed[stem]}.{end}"
    parts = name.split(".")
    if parts[0] == "mid_block":
        kind, number, rest = parts[1], int(parts[2]), parts[3:]
        place = f"middle_block.{1 if kind == 'attentions' else 2 * number}"
        return f"{place}.{_sgm_resnet(rest) if kind == 'resnets' else '.'.join(rest)}"
    way, block, kind, number, rest = parts[0], int(parts[1]), parts[2], int(parts[3]), parts[4:]
    if kind == "downsamplers":
        return f"input_blocks.{3 * (block + 1)}.0.op.{rest[-1]}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * block + 2}.2.{'.'.join(rest)}"
    at = (
        f"input_blocks.{3 * block + number + 1}"
        if way == "down_blocks"
        else f"output_blocks.{3 * block + number}"
    )
    return f"{at}.0.{_sgm_resnet(rest)}" if kind == "resnets" else f"{at}.1.{'.'.join(rest)}"


def _sgm_resnet(rest: list[str]) -> str:
    names = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
    }
    return ".".join([names[rest[0]], *rest[1:]])


_BLOCKS = 2  # of the VAE of `_sdxl`


def _sgm_vae(name: str) -> str:
    """Return the name that a tensor of AutoencoderKL has in the makers' code."""
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.resnets\.", r"encoder.down.\1.block.", name)
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample.", name)
    name = re.sub(
        r"decoder\.up_blocks\.(\d+)\.resnets\.",
        lambda found: f"decoder.up.{_BLOCKS - 1 - int(found[1])}.block.",
        name,
    )
    name = re.sub(
        r"decoder\.up_blocks\.(\d+)\.upsamplers\.0\.",
        lambda found: f"decoder.up.{_BLOCKS - 1 - int(found[1])}.upsample.",
        name,
    )
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0.", "mid.attn_1.")
    for ours, theirs in {
        "conv_norm_out": "norm_out",
        "conv_shortcut": "nin_shortcut",
        "attn_1.group_norm": "attn_1.norm",
        "attn_1.to_q": "attn_1.q",
        "attn_1.to_k": "attn_1.k",
        "attn_1.to_v": "attn_1.v",
        "attn_1.to_out.0": "attn_1.proj_out",
    }.items():
        name = name.replace(ours, theirs)
    return name


def _sgm_vae_tensor(name: str, tensor: Any) -> Any:
    linear = "attentions" in name and tensor.ndim == 2
    return tensor[:, :, None, None] if linear else tensor


def _text_model(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _open_clip(prefix: str, model: Any) -> dict[str, Any]:
    """Return the tensors of CLIPTextModelWithProjection under the names of open_clip."""
    import torch

    state = {name.removeprefix("text_model."): each for name, each in _state(model)}
    found = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T,
        "logit_scale": torch.tensor(1.0),
    }
    names = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    for number in range(model.config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{number}.", f"transformer.resblocks.{number}."
        for end in ("weight", "bias"):
            for name, other in names.items():
                found[f"{theirs}{other}.{end}"] = state[f"{ours}{name}.{end}"]
            found[f"{theirs}attn.in_proj_{end}"] = torch.cat(
                [state[f"{ours}self_attn.{each}_proj.{end}"] for each in "qkv"]
            )
    return {f"{prefix}{name}": each for name, each in found.items()}


def _file(tensors: Mapping[str, Any], path: Path, metadata: Mapping[str, str] | None = None) -> Path:
    from safetensors.torch import save_file

    plain = {name: each.contiguous().clone() for name, each in tensors.items()}
    save_file(plain, path, {"format": "pt", **(metadata or {})})
    return path


# --- components


def _saved(pipe: Any, folder: Path) -> Path:
    for each in pipe.components.values():
        if hasattr(each, "parameters"):
            each.eval()
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def _noise(model: Any) -> None:
    """Give tensors that begin as zero something that shows."""
    import torch

    with torch.no_grad():
        for each in model.parameters():
            if not each.any():
                each.normal_(std=0.5)


def _vae(channels: list[int]) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=channels,
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        latent_channels=4,
        norm_num_groups=2 if channels[0] < 32 else 32,
        sample_size=64,
    )


def _clip(width: int, layers: int, *, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
        hidden_size=width,
        projection_dim=width,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=layers,
        vocab_size=514,
        hidden_act="gelu" if projected else "quick_gelu",
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def _clip_tokenizer(folder: Path) -> Any:
    """Return a tokenizer of single letters: GPT-2's alphabet of bytes, with and without an end of word."""
    from transformers import CLIPTokenizer

    letters = [chr(each) for each in _CHARACTERS]
    letters += [chr(256 + number) for number in range(256 - len(letters))]
    words = [*letters, *(f"{each}</w>" for each in letters), "<|startoftext|>", "<|endoftext|>"]
    place = folder / ".making"
    place.mkdir(exist_ok=True)
    (place / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    made = CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=77)
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    return made


def _t5(width: int = 32) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(_t5_config(T5Config, width))


def _umt5() -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(_t5_config(UMT5Config, 32))


def _t5_config(kind: Any, width: int) -> Any:
    return kind(
        d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4, vocab_size=300, num_decoder_layers=2
    )


def _t5_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import T5TokenizerFast

    letters = [chr(each) for each in range(97, 123)]
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((each, -3.0) for each in letters)]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return T5TokenizerFast(tokenizer_object=tokenizer, extra_ids=0, model_max_length=128)


def _qwen_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Qwen2Tokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>", *letters]
    vocabulary = {word: number for number, word in enumerate(words)}
    try:
        return Qwen2Tokenizer(vocab=vocabulary, merges=[])
    except TypeError:
        tokenizer = Tokenizer(models.BPE(vocabulary, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return Qwen2Tokenizer(tokenizer_object=tokenizer)


KINDS: dict[str, Callable[[Path], Path]] = {
    "sd15": sd15,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "qwen-image": qwen_image,
    "wan": wan,
    "ltx": ltx,
    "stable-audio": stable_audio,
    "ddpm": ddpm,
    "controlnet": controlnet,
    "vae": vae,
    "lora-peft": lora_peft,
    "lora-kohya": lora_kohya,
    "sdxl-file": sdxl_file,
    "ltx-base": ltx_base,
    "ltx-file": ltx_file,
    "ltx-gguf": ltx_gguf,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
