"""What each example workflow needs to run small: files of random weights, inputs, settings. Data alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

SAMPLERS: Final = frozenset(
    {
        "CogVideoSampler",
        "FlashPortraitSampler",
        "GenfocusBokehNative",
        "GenfocusDeblurNative",
        "KSampler",
        "SamplerCustomAdvanced",
    }
)
"""Classes of nodes that sample."""

FOLDERS: Final = frozenset({"cogvideox", "flashportrait", "flux-diffusers"})
"""Kinds that are folders."""


@dataclass(frozen=True)
class Small:
    """One model's workflow, made small.

    Attributes:
        files: Kinds of workflow_kit.make, by path below models/.
        settings: Inputs of nodes ("6.steps") that are otherwise than in the workflow.
        inputs: Kinds by name, below input/.
        otherwise: In what the files differ from the published ones, beyond being random.
    """

    files: dict[str, str]
    settings: dict[str, int | float | str]
    inputs: dict[str, str] = field(default_factory=dict)
    otherwise: str = ""


NARROW: Final = "two narrow blocks of each kind"
PICTURE: Final = {"example.png": "picture"}
FLUX1_LAYOUT: Final = "diffusers/FLUX.1-dev"


def sdxl(name: str, size: str, sampler: str) -> Small:
    """Return an SDXL checkpoint's: full size, since ComfyUI knows it by its shapes."""
    settings: dict[str, int | float | str] = {
        f"{size}.width": 64,
        f"{size}.height": 64,
        f"{sampler}.steps": 2,
    }
    return Small({f"checkpoints/{name}": "sdxl"}, settings)


def flux1(kind: str, size: str, sampler: str) -> Small:
    """Return a FLUX.1's in one file."""
    settings: dict[str, int | float | str] = {
        f"{size}.width": 128,
        f"{size}.height": 128,
        f"{sampler}.steps": 2,
    }
    otherwise = f"{NARROW}, in 16 bits; both text encoders and the VAE are of full size"
    return Small({f"checkpoints/{kind}-fp8.safetensors": kind}, settings, otherwise=otherwise)


MODELS: Final = {
    "sdxl-base": sdxl("sd_xl_base_1.0.safetensors", "4", "5"),
    "juggernaut-xl-v9": sdxl("Juggernaut-XL_v9_RunDiffusionPhoto_v2.safetensors", "4", "5"),
    "realvisxl-v4": sdxl("RealVisXL_V4.0.safetensors", "4", "5"),
    "pony-v6-xl": sdxl("ponyDiffusionV6XL_v6StartWithThisOne.safetensors", "5", "6"),
    "pony-realism-v21": sdxl("ponyRealism_v21MainVAE.safetensors", "5", "6"),
    "sdxl-vae": Small(
        {"checkpoints/sd_xl_base_1.0.safetensors": "sdxl", "vae/sdxl_vae.safetensors": "sdxl-vae"},
        {"5.width": 64, "5.height": 64, "6.steps": 2},
    ),
    "flux1-dev": flux1("flux1-dev", "5", "6"),
    "flux1-schnell": flux1("flux1-schnell", "4", "5"),
    "flux2-dev": Small(
        {
            "diffusion_models/flux2_dev_fp8mixed.safetensors": "flux2",
            "text_encoders/mistral_3_small_flux2_fp8.safetensors": "mistral",
            "vae/flux2-vae.safetensors": "flux2-vae",
        },
        {"6.width": 128, "6.height": 128, "9.width": 128, "9.height": 128, "9.steps": 2},
        otherwise=f"{NARROW}, in 16 bits; the text encoder without its large matrices",
    ),
    "svd-xt": Small(
        {"checkpoints/svd_xt.safetensors": "svd"},
        {"3.width": 128, "3.height": 128, "3.video_frames": 3, "5.steps": 2},
        PICTURE,
        "in 16 bits",
    ),
    "animatediff": Small(
        {
            "checkpoints/sd_xl_base_1.0.safetensors": "sdxl",
            "animatediff_models/mm_sdxl_v10_beta.ckpt": "motion-module",
        },
        # Two more frames than a context window has, so that there are two windows.
        {"8.width": 64, "8.height": 64, "8.batch_size": 18, "9.steps": 1},
    ),
    "cogvideox-5b": Small(
        {"CogVideo/CogVideoX-5b": "cogvideox", "text_encoders/t5xxl_fp8_e4m3fn.safetensors": "t5xxl"},
        {"5.width": 128, "5.height": 128, "6.num_frames": 9, "6.steps": 2},
        otherwise="two narrow blocks and a narrow VAE; the text encoder is of full size",
    ),
    "genfocus": Small(
        {
            FLUX1_LAYOUT: "flux-diffusers",
            "genfocus/deblurNet.safetensors": "flux-lora",
            "genfocus/bokehNet.safetensors": "flux-lora",
            "checkpoints/depth_pro.pt": "depth-pro",
        },
        {"8.steps": 2, "9.steps": 2},
        PICTURE,
        f"FLUX.1 with {NARROW}, narrow text encoders and a narrow VAE; Depth Pro is of full size",
    ),
    "flashportrait": Small(
        {"flash_portrait": "flashportrait"},
        # Its sampler wants a card: wan_image_encoder.py relies on CUDA's autocast, and pipeline_wan_long.py
        # enters torch.cuda.device. On a CPU the first of them ends it, after the prompt's encoding.
        # accelerate cannot offload from a CPU to a CPU: "cpu:0" and "cpu" are two devices to it.
        {
            "1.GPU_memory_mode": "default", "5.context_size": 9, "5.context_overlap": 4,
            "6.context_size": 9, "6.context_overlap": 4, "6.steps": 2, "6.max_size": 128,
        },
        {"example.png": "portrait", "example.mp4": "video"},
        "two narrow blocks; layers of encoders share their numbers; other graphs for the face models",
    ),
}  # fmt: skip
