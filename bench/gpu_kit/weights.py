"""Write full-size model files of random weights that ComfyUI recognises. Runs in ComfyUI's Python, on a GPU.

    weights.py COMFYUI_DIR KIND FILE

Kinds: sdxl (checkpoint, fp16, 6.9 GB), wan14b-fp8 (Wan 2.1 text-to-video 14B, float8_e4m3fn, 14 GB),
wan14b-fp16 (28 GB), wan-vae (0.25 GB). The shapes come from ComfyUI's own classes on the meta device, so
that ComfyUI's detection sees what it sees in the real files. The file is written as a stream (safetensors
format: https://github.com/huggingface/safetensors#format), so RAM stays below 1 GB.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

DEVICE = "cuda"

DTYPES = {
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float32": "F32",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.int64": "I64",
}


def main(root: str, kind: str, out: str) -> int:
    """Write one file; returns 0."""
    sys.argv = ["weights", "--cpu"]  # ComfyUI parses the command line when it is imported
    sys.path.insert(0, root)
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch

    started = time.monotonic()
    with torch.no_grad():
        tensors = KINDS[kind](torch)
        size = write(torch, tensors, Path(out))
    print(
        f"{kind}: {size / 1e9:.1f} GB, {len(tensors)} tensors, {time.monotonic() - started:.1f} s", flush=True
    )
    return 0


def write(torch: Any, tensors: dict[str, Any], out: Path) -> int:
    """Stream the tensors, meta ones as random ones, into a safetensors file; returns its size in bytes."""
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
    generator = torch.Generator(device=DEVICE).manual_seed(7)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors.items():
            file.write(random_bytes(torch, name, tensor, generator))
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
        made = torch.randn(tensor.shape, device=DEVICE, dtype=torch.float16, generator=generator).mul_(gain)
        made = made.to(tensor.dtype).cpu()
    return memoryview(made.contiguous().view(-1).view(torch.uint8).numpy())


def sdxl(torch: Any) -> dict[str, Any]:
    """Return the tensors of an SDXL base checkpoint, on the meta device but for the indices."""
    import comfy.ops
    import comfy.sdxl_clip
    import comfy.supported_models
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    half = torch.float16
    config = {
        "image_size": 32, "out_channels": 4, "use_spatial_transformer": True,
        "legacy": False, "in_channels": 4,
        "model_channels": 320, "use_temporal_attention": False, "use_temporal_resblock": False, "dtype": half,
        "num_classes": "sequential", "adm_in_channels": 2816, "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 2, 2, 10, 10], "channel_mult": [1, 2, 4], "transformer_depth_middle": 10,
        "use_linear_in_transformer": True, "context_dim": 2048, "num_head_channels": 64,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    }  # fmt: skip
    unet = UNetModel(**config, device="meta", operations=comfy.ops.disable_weight_init)
    text = comfy.sdxl_clip.SDXLClipModel(device="meta", dtype=half)
    vae_config = {
        "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
        "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    with torch.device("meta"):
        vae = AutoencoderKL(ddconfig=vae_config, embed_dim=4)

    def cast(state: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value if value.dtype == torch.int64 else value.to(half) for name, value in state.items()
        }

    tensors = {f"model.diffusion_model.{name}": value for name, value in cast(unet.state_dict()).items()}
    tensors |= {f"first_stage_model.{name}": value for name, value in cast(vae.state_dict()).items()}
    model = comfy.supported_models.SDXL(config)
    saved = model.process_clip_state_dict_for_saving(cast(text.state_dict()))
    return tensors | saved


def wan14b(dtype: str) -> Any:
    """Return a maker of the tensors of Wan 2.1 text-to-video 14B in one dtype."""

    def make(torch: Any) -> dict[str, Any]:
        import comfy.ops
        from comfy.ldm.wan.model import WanModel

        model = WanModel(
            model_type="t2v", dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, in_dim=16, out_dim=16,
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


KINDS = {
    "sdxl": sdxl,
    "wan14b-fp8": wan14b("float8_e4m3fn"),
    "wan14b-fp16": wan14b("float16"),
    "wan-vae": wan_vae,
}

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
