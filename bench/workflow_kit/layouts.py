"""Folders of random weights as diffusers and FlashPortrait's node read them. Runs in ComfyUI's Python.

Whatever has a configuration file is made small. What a node's code builds at one size (Depth Pro, and
FlashPortrait's encoders) stays as large; how those fit is said where they are made.
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final

import own_node_kit as kit
from workflow_kit import face_graphs

if TYPE_CHECKING:
    from pathlib import Path

HEAD: Final = 128
"""Channels of a head of FLUX.1 and of Wan, whose rotary embeddings divide them."""
T5_TOKENIZER: Final = "comfy/text_encoders/t5_tokenizer"
CLIP_LENGTH: Final = 77
"""Tokens of a prompt, as FLUX.1's own tokenizer says; ComfyUI's file has another number and is not asked."""
SMALL_VAE: Final = {"block_out_channels": (32, 32, 32, 32), "norm_num_groups": 8, "layers_per_block": 1}


def cogvideox(torch: Any, out: Path, _: Path, nodes: Path) -> None:
    """Write CogVideoX-5b's transformer, of two narrow blocks, in two shards, and a narrow VAE."""
    from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel  # noqa: PLC0415 - this alone needs it

    configs = nodes / "cogvideoxwrapper/configs"
    config = _published(configs / "transformer_config_5b.json") | {"num_layers": 2, "num_attention_heads": 2}
    transformer = _random(torch, CogVideoXTransformer3DModel(**config)).to(torch.bfloat16)
    half = sum(each.numel() * each.element_size() for each in transformer.parameters()) * 2 // 3
    transformer.save_pretrained(out / "transformer", max_shard_size=half)
    config = _published(configs / "vae_config.json") | {"block_out_channels": [32, 32, 32, 32]}
    _random(torch, AutoencoderKLCogVideoX(**config)).to(torch.bfloat16).save_pretrained(out / "vae")


def flux_diffusers(torch: Any, out: Path, comfyui: Path, _: Path) -> None:
    """Write FLUX.1 [dev] in diffusers' layout, with few and narrow blocks, and ComfyUI's tokenizers."""
    import diffusers  # noqa: PLC0415 - as above
    import transformers  # noqa: PLC0415

    clip = transformers.CLIPTextConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, eos_token_id=2
    )
    t5 = transformers.T5Config(d_model=32, d_ff=64, d_kv=16, num_layers=1, num_heads=2)
    pipeline = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=_random(
            torch,
            diffusers.AutoencoderKL(
                latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611,
                shift_factor=0.1159, down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4, **SMALL_VAE,
            ),
        ),
        text_encoder=_random(torch, transformers.CLIPTextModel(clip)),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(
            comfyui / "comfy/sd1_tokenizer", model_max_length=CLIP_LENGTH
        ),
        text_encoder_2=_random(torch, transformers.T5EncoderModel(t5)),
        tokenizer_2=transformers.T5TokenizerFast.from_pretrained(comfyui / T5_TOKENIZER),
        transformer=_flux_transformer(torch),
    )  # fmt: skip
    pipeline.to(torch.bfloat16).save_pretrained(out)


def _flux_transformer(torch: Any) -> Any:
    import diffusers  # noqa: PLC0415 - as above

    return _random(
        torch,
        diffusers.FluxTransformer2DModel(
            in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=HEAD, num_attention_heads=2,
            joint_attention_dim=32, pooled_projection_dim=32, guidance_embeds=True,
        ),
    )  # fmt: skip


def flux_lora(torch: Any, out: Path, _: Path, __: Path) -> None:
    """Write a LoRA on such a transformer, at the places that Genfocus's code switches it."""
    import diffusers  # noqa: PLC0415 - as above
    from peft import LoraConfig, get_peft_model_state_dict  # noqa: PLC0415

    transformer = _flux_transformer(torch)
    places = [
        "x_embedder",
        "norm1.linear",
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "ff.net.2",
    ]
    places += ["norm.linear", "proj_mlp", "proj_out"]
    transformer.add_adapter(LoraConfig(r=4, target_modules=places, init_lora_weights=False))
    state = get_peft_model_state_dict(transformer)
    diffusers.FluxPipeline.save_lora_weights(out.parent, state, weight_name=out.name)


def depth_pro(torch: Any, out: Path, _: Path, nodes: Path) -> None:
    """Write Depth Pro at full size in 16 bits: 1.9 GB."""
    sys.path.insert(0, str(nodes / "ml-depth-pro/src"))
    from depth_pro.depth_pro import (  # noqa: PLC0415 - as above
        DEFAULT_MONODEPTH_CONFIG_DICT,
        create_model_and_transforms,
    )

    DEFAULT_MONODEPTH_CONFIG_DICT.checkpoint_uri = None
    model, _ = create_model_and_transforms(DEFAULT_MONODEPTH_CONFIG_DICT)
    _save(torch, model.half().state_dict(), out)


def flashportrait(torch: Any, out: Path, comfyui: Path, nodes: Path) -> None:
    """Write what FlashPortrait's node reads: Wan 2.1 in its first layout, and FlashPortrait's own files.

    Its text encoder and CLIP are built at one size (11 and 5 GB). Their layers share one layer's numbers,
    which torch's files keep shared, so that they take little disk and, where not copied, little memory.
    face_det.onnx and face_landmark.onnx exist as graphs alone, which are not to be had; in their place stand
    random layers with the inputs and outputs that the node's code reads.
    """
    sys.path.insert(0, str(nodes / "flashportrait"))
    from wan.models import pdf, portrait_encoder, wan_image_encoder, wan_vae  # noqa: PLC0415 - as above

    wan, own = out / "Wan2.1-I2V-14B-720P", out / "FlashPortrait"
    _wan_transformer(torch, wan, own)
    _save(
        torch,
        _random(torch, wan_vae.AutoencoderKLWan().model).to(torch.bfloat16).state_dict(),
        wan / "Wan2.1_VAE.pth",
    )
    _save(torch, _wan_t5(torch), wan / "models_t5_umt5-xxl-enc-bf16.pth")
    with torch.device("meta"):
        clip = wan_image_encoder.XLMRobertaCLIP()
    _save(torch, _shared(torch, clip), wan / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")
    shutil.copytree(comfyui / T5_TOKENIZER, wan / "google/umt5-xxl", dirs_exist_ok=True)
    _save(
        torch,
        _random(torch, portrait_encoder.PortraitEncoder(768, 2048)).state_dict(),
        own / "portrait_encoder.pt",
    )
    _save(torch, _random(torch, pdf.FanEncoder()).state_dict(), own / "pd_fpg.pth")
    face_graphs.write(own)


def _wan_transformer(torch: Any, wan: Path, own: Path) -> None:
    """Write a Wan 2.1 image-to-video transformer of two narrow blocks, and FlashPortrait's over it."""
    from safetensors.torch import save_file  # noqa: PLC0415 - as above
    from wan.models import WanTransformer3DModel  # noqa: PLC0415

    config = {
        "_class_name": "WanModel", "dim": 2 * HEAD, "eps": 1e-06, "ffn_dim": 4 * HEAD, "freq_dim": 256,
        "in_dim": 36, "model_type": "i2v", "num_heads": 2, "num_layers": 2, "out_dim": 16, "text_len": 512,
    }  # fmt: skip
    wan.mkdir(parents=True, exist_ok=True)
    (wan / "config.json").write_text(json.dumps(config))
    more = {"in_channels": config["in_dim"], "hidden_size": config["dim"]}
    model = WanTransformer3DModel.from_config({**config, **more})
    state = {
        name: each.contiguous()
        for name, each in _random(torch, model).to(torch.bfloat16).state_dict().items()
    }
    save_file(state, wan / "diffusion_pytorch_model-00001-of-00007.safetensors")
    _save(torch, state, own / "transformer.pt")


def _wan_t5(torch: Any) -> dict[str, Any]:
    """Return UMT5-XXL's encoder as the node configures it."""
    from wan.models import WanT5EncoderModel  # noqa: PLC0415 - as above

    with torch.device("meta"):
        encoder = WanT5EncoderModel(
            vocab=256384, dim=4096, dim_attn=4096, dim_ffn=10240, num_heads=64, num_layers=24, num_buckets=32,
            shared_pos=False, dropout=0.0,
        )  # fmt: skip
    return _shared(torch, encoder)


def _shared(torch: Any, model: Any) -> dict[str, Any]:
    """Return random weights in bf16 in which tensors of one shape and role are one tensor."""
    chance = torch.Generator().manual_seed(7)
    made: dict[tuple[Any, ...], Any] = {}
    state = {}
    for name, each in model.state_dict().items():
        key = (tuple(each.shape), name.rsplit(".", 1)[-1])
        if key not in made:
            part = torch.nn.Module()
            part.register_buffer(key[1], torch.empty(each.shape, dtype=torch.bfloat16))
            made[key] = kit.random_state(part, chance)[key[1]].to(torch.bfloat16)
        state[name] = made[key]
    return state


def _published(path: Path) -> dict[str, Any]:
    """Return a configuration as diffusers' classes take it."""
    config = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _random(torch: Any, model: Any) -> Any:
    """Give a model random weights with which its input matters; returns it."""
    model.load_state_dict(kit.random_state(model, torch.Generator().manual_seed(7)))
    return model.eval()


def _save(torch: Any, state: dict[str, Any], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, out)


LAYOUTS: Final = {
    "cogvideox": cogvideox,
    "flux-diffusers": flux_diffusers,
    "flux-lora": flux_lora,
    "depth-pro": depth_pro,
    "flashportrait": flashportrait,
}
