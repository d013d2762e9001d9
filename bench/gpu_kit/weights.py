"""Write files of random weights that ComfyUI recognises. Runs in ComfyUI's Python, on a GPU where one is.

    weights.py COMFYUI_DIR KIND FILE

Full size, to be measured: sdxl (checkpoint, fp16, 6.9 GB), wan14b-fp8 (Wan 2.1 text-to-video 14B,
float8_e4m3fn, 14.5 GB), wan14b-fp16 (29 GB), wan-vae (0.25 GB). Small, to see that a class of models runs at
all: sd15 and svd (whole, 2.1 and 4.6 GB, since ComfyUI knows UNets by their shapes), wan-small, flux-small,
flux2-small and hunyuan-small (few and narrow blocks, tens of MB), qwen-small (one block, 0.8 GB), flux-vae
and flux2-vae (0.17 GB). The shapes come from ComfyUI's own classes on the meta device, so that ComfyUI's
detection sees what it sees in the real files. The file is written as a stream (safetensors
format: https://github.com/huggingface/safetensors#format), so RAM stays below 1 GB.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

DTYPES = {
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float32": "F32",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.int64": "I64",
    "torch.uint8": "U8",
}


def main(root: str, kind: str, out: str) -> int:
    """Write one file; returns 0."""
    torch = with_comfyui(root)
    started = time.monotonic()
    with torch.no_grad():
        tensors = KINDS[kind](torch)
        size = write(torch, tensors, Path(out))
    print(
        f"{kind}: {size / 1e9:.1f} GB, {len(tensors)} tensors, {time.monotonic() - started:.1f} s", flush=True
    )
    return 0


def with_comfyui(root: str) -> Any:
    """Make ComfyUI's modules importable, for the CPU; returns torch."""
    sys.argv = ["weights", "--cpu"]  # ComfyUI parses the command line when it is imported
    sys.path.insert(0, root)
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch

    return torch


def write(torch: Any, tensors: dict[str, Any], out: Path, fill: Any = None) -> int:
    """Stream the tensors, meta ones as random ones, into a safetensors file; returns its size in bytes.

    `fill` takes the place of random_bytes.
    """
    fill = fill or random_bytes
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + size],
        }
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device=device).manual_seed(7)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors.items():
            file.write(fill(torch, name, tensor, generator))
    part.replace(out)
    return 8 + len(text) + end


def random_bytes(torch: Any, name: str, tensor: Any, generator: Any) -> memoryview:
    """Return a tensor's bytes: indices counted up, norms 1, biases 0, matrices random with a gain of 0.7."""
    if tensor.dtype in (torch.int64, torch.int32):
        made = torch.arange(tensor.numel(), dtype=tensor.dtype)
    elif tensor.ndim <= 1 or "gamma" in name:
        made = torch.full(tensor.shape, float(name.endswith(("weight", "gamma"))), dtype=torch.float32).to(
            tensor.dtype
        )
    else:
        gain = 0.7 / (tensor.numel() / tensor.shape[0]) ** 0.5
        made = torch.randn(tensor.shape, device=generator.device, dtype=torch.float16, generator=generator)
        made.mul_(gain)
        made = made.to(tensor.dtype).cpu()
    return memoryview(made.contiguous().view(-1).view(torch.uint8).numpy())


def sdxl(torch: Any) -> dict[str, Any]:
    """Return the tensors of an SDXL base checkpoint, on the meta device but for the indices."""
    import comfy.sdxl_clip
    import comfy.supported_models

    config = {
        **_unet(torch), "num_classes": "sequential", "adm_in_channels": 2816, "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 2, 2, 10, 10], "channel_mult": [1, 2, 4], "transformer_depth_middle": 10,
        "use_linear_in_transformer": True, "context_dim": 2048, "num_head_channels": 64,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    }  # fmt: skip
    text = comfy.sdxl_clip.SDXLClipModel(device="meta", dtype=torch.float16)
    return _checkpoint(torch, config, comfy.supported_models.SDXL, text)


def sd15(torch: Any) -> dict[str, Any]:
    """Return the tensors of a Stable Diffusion 1.5 checkpoint."""
    import comfy.sd1_clip
    import comfy.supported_models

    config = {
        **_unet(torch), "adm_in_channels": None, "num_res_blocks": [2, 2, 2, 2], "context_dim": 768,
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "channel_mult": [1, 2, 4, 4], "num_heads": 8,
        "transformer_depth_middle": 1, "use_linear_in_transformer": False,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    }  # fmt: skip
    text = comfy.sd1_clip.SD1ClipModel(device="meta", dtype=torch.float16)
    return _checkpoint(torch, config, comfy.supported_models.SD15, text)


def _unet(torch: Any) -> dict[str, Any]:
    """Return what the UNets have in common."""
    return {
        "image_size": 32, "out_channels": 4, "use_spatial_transformer": True, "legacy": False,
        "in_channels": 4, "model_channels": 320, "use_temporal_attention": False,
        "use_temporal_resblock": False, "dtype": torch.float16,
    }  # fmt: skip


def _checkpoint(torch: Any, config: dict[str, Any], supported: Any, text: Any) -> dict[str, Any]:
    """Return the tensors of a checkpoint: UNet, VAE, and text encoders as ComfyUI saves them."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    unet = UNetModel(**config, device="meta", operations=comfy.ops.disable_weight_init)
    tensors = {f"model.diffusion_model.{name}": value for name, value in half(torch, unet).items()}
    tensors |= {f"first_stage_model.{name}": value for name, value in vae(torch, 4).items()}
    saved = supported(config).process_clip_state_dict_for_saving(half(torch, text))
    return {**tensors, **saved}


def half(torch: Any, model: Any) -> dict[str, Any]:
    """Return a model's tensors in 16 bits."""
    state = model.state_dict().items()
    return {name: value if value.dtype == torch.int64 else value.to(torch.float16) for name, value in state}


def vae(torch: Any, channels: int, **more: Any) -> dict[str, Any]:
    """Return the tensors of a VAE with so many latent channels: 4 of Stable Diffusion, 16 of FLUX.1.

    `more` is further configuration, as ComfyUI's class has it.
    """
    from comfy.ldm.models.autoencoder import AutoencoderKL

    config = {
        "double_z": True, "z_channels": channels, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
        "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
        **more,
    }  # fmt: skip
    with torch.device("meta"):
        return half(torch, AutoencoderKL(ddconfig=config, embed_dim=channels))


def flux_vae(torch: Any) -> dict[str, Any]:
    """Return the tensors of a VAE of FLUX.1's shape."""
    return vae(torch, 16)


def flux_small(torch: Any, *, guidance: bool = False) -> dict[str, Any]:
    """Return the tensors of a FLUX.1 of two narrow blocks of each kind: [schnell], or [dev] with guidance."""
    import comfy.ops
    from comfy.ldm.flux.model import Flux

    model = Flux(
        in_channels=16, out_channels=16, vec_in_dim=768, context_in_dim=4096, hidden_size=256, mlp_ratio=4.0,
        num_heads=2, depth=2, depth_single_blocks=2, axes_dim=[16, 56, 56], theta=10000, patch_size=2,
        qkv_bias=True, guidance_embed=guidance, txt_ids_dims=[], device="meta", dtype=torch.float16,
        operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    return half(torch, model)


def flux2_small(torch: Any) -> dict[str, Any]:
    """Return the tensors of a FLUX.2 of two narrow blocks of each kind, in 16 bits."""
    import comfy.ops
    from comfy.ldm.flux.model import Flux

    model = Flux(
        in_channels=128, out_channels=128, vec_in_dim=None, context_in_dim=3 * 5120, hidden_size=256,
        mlp_ratio=3.0, num_heads=2, depth=2, depth_single_blocks=2, axes_dim=[32, 32, 32, 32], theta=2000,
        patch_size=1, qkv_bias=False, guidance_embed=True, txt_ids_dims=[3], global_modulation=True,
        mlp_silu_act=True, ops_bias=False, device="meta", dtype=torch.float16,
        operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    return half(torch, model)


def flux2_vae(torch: Any) -> dict[str, Any]:
    """Return the tensors of FLUX.2's VAE."""
    return vae(torch, 32, batch_norm_latent=True)


def hunyuan_small(torch: Any) -> dict[str, Any]:
    """Return the tensors of a HunyuanVideo of two narrow blocks of each kind, in 16 bits."""
    import comfy.ops
    from comfy.ldm.hunyuan_video.model import HunyuanVideo

    model = HunyuanVideo(
        in_channels=16, out_channels=16, vec_in_dim=768, context_in_dim=4096, hidden_size=256, mlp_ratio=4.0,
        num_heads=2, depth=2, depth_single_blocks=2, axes_dim=[16, 56, 56], theta=256, patch_size=[1, 2, 2],
        qkv_bias=True, guidance_embed=True, byt5=False, meanflow=False, use_cond_type_embedding=False,
        vision_in_dim=None, meanflow_sum=False, device="meta", dtype=torch.float16,
        operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    return half(torch, model)


def qwen_small(torch: Any) -> dict[str, Any]:
    """Return the tensors of a Qwen-Image of one block, which ComfyUI knows in one width alone: 0.8 GB."""
    import comfy.ops
    from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel

    model = QwenImageTransformer2DModel(
        num_layers=1, device="meta", dtype=torch.float16, operations=comfy.ops.disable_weight_init
    )
    return half(torch, model)


def wan(dtype: str, blocks: int = 40, heads: int = 40) -> Any:
    """Return a maker of the tensors of Wan 2.1 text-to-video in one dtype: 14B, or a smaller one."""

    def make(torch: Any) -> dict[str, Any]:
        import comfy.ops
        from comfy.ldm.wan.model import WanModel

        model = WanModel(
            model_type="t2v", dim=128 * heads, ffn_dim=128 * heads * 27 // 10, num_heads=heads,
            num_layers=blocks, in_dim=16, out_dim=16,
            device="meta", dtype=torch.float16, operations=comfy.ops.disable_weight_init,
        )  # fmt: skip
        wanted = getattr(torch, dtype)
        # As in the published files: matrices of the blocks in fp8, all else in fp16.
        return {
            name: value.to(wanted if value.ndim == 2 and name.startswith("blocks.") else torch.float16)
            for name, value in model.state_dict().items()
        }

    return make


def wan_vae(torch: Any) -> dict[str, Any]:
    """Return the tensors of the Wan 2.1 VAE."""
    from comfy.ldm.wan.vae import WanVAE

    with torch.device("meta"):
        vae = WanVAE(
            dim=96, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
            temperal_downsample=[False, True, True], image_channels=3, conv_out_channels=3, dropout=0.0,
        )  # fmt: skip
    return {name: value.to(torch.bfloat16) for name, value in vae.state_dict().items()}


def svd(torch: Any) -> dict[str, Any]:
    """Return the tensors of Stable Video Diffusion XT in one file: UNet, VAE and CLIP's vision model."""
    import comfy.clip_model
    import comfy.clip_vision
    import comfy.ops
    import comfy.supported_models
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    config = {
        "image_size": 32, "out_channels": 4, "use_spatial_transformer": True, "legacy": False,
        "in_channels": 8, "model_channels": 320, "dtype": torch.float16, "num_classes": "sequential",
        "adm_in_channels": 768, "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
        "context_dim": 1024,
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "use_linear_in_transformer": True,
        "num_head_channels": 64, "extra_ff_mix_layer": True, "use_spatial_context": True,
        "merge_strategy": "learned_with_images", "video_kernel_size": [3, 1, 1],
        "use_temporal_resblock": True, "use_temporal_attention": True,
        "disable_temporal_crossattention": False,
    }  # fmt: skip
    unet = UNetModel(**config, device="meta", operations=comfy.ops.disable_weight_init)
    known = comfy.clip_vision.__file__.replace("clip_vision.py", "clip_vision_config_h.json")
    with open(known, encoding="utf-8") as file:  # noqa: PTH123 - ComfyUI's own way to find it
        vision = comfy.clip_model.CLIPVisionModelProjection(
            json.load(file), torch.float16, torch.device("meta"), comfy.ops.disable_weight_init
        )
    saved = comfy.supported_models.SVD_img2vid(config)
    return {
        **saved.process_unet_state_dict_for_saving(half(torch, unet)),
        **saved.process_vae_state_dict_for_saving(_video_vae(torch)),
        **saved.process_clip_vision_state_dict_for_saving(half(torch, vision)),
    }


def _video_vae(torch: Any) -> dict[str, Any]:
    """Return the tensors of SVD's VAE, whose decoder looks at neighbouring frames."""
    from comfy.ldm.models.autoencoder import AutoencodingEngine

    encoder = {
        "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
        "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    decoder = {**encoder, "video_kernel_size": [3, 1, 1], "alpha": 0.0}
    modules = "comfy.ldm.modules"
    # Not on the meta device, which cannot make the factors that mix in time.
    vae = AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={"target": f"{modules}.diffusionmodules.model.Encoder", "params": encoder},
        decoder_config={"target": f"{modules}.temporal_ae.VideoDecoder", "params": decoder},
    )
    return half(torch, vae)


KINDS = {
    "sdxl": sdxl,
    "wan14b-fp8": wan("float8_e4m3fn"),
    "wan14b-fp16": wan("float16"),
    "wan-vae": wan_vae,
    "sd15": sd15,
    "wan-small": wan("float16", blocks=2, heads=2),
    "flux-small": flux_small,
    "flux-vae": flux_vae,
    "flux2-small": flux2_small,
    "flux2-vae": flux2_vae,
    "hunyuan-small": hunyuan_small,
    "qwen-small": qwen_small,
    "svd": svd,
}

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
