"""InfCam's code with smaller models, and random weights for it, in a folder like upstream's.

Upstream tells a file of weights by a hash of its tensors' names and shapes, so smaller ones need another hash
in its tables. Width 1536 stands in upstream's script itself; layers alone can be fewer.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final

import own_node_kit as kit
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import T5TokenizerFast

if TYPE_CHECKING:
    from pathlib import Path

DIT_HASH: Final = "9269f8db9040a9d860eaca435be61814"
T5_HASH: Final = "9c8818c2cbea55eca56c7b447df170da"
VOCABULARY: Final = 384
SMALLER: Final = {
    "diffsynth/models/wan_video_text_encoder.py": [
        ("vocab=256384", f"vocab={VOCABULARY}"),
        ("dim_ffn=10240", "dim_ffn=64"),
        ("num_layers=24", "num_layers=1"),
    ],
    "diffsynth/models/wan_video_dit.py": [('"num_layers": 30', '"num_layers": 2')],
    # torch 2.11 on a CPU: a convolution of one voxel in bf16 gives NaN now and then.
    "inference_infcam.py": [("torch.bfloat16", "torch.float32")],
}
ON_CPU: Final = {
    "inference_infcam.py": [('"cuda"', '"cpu"')],
    "diffsynth/prompters/wan_prompter.py": [('device="cuda"', 'device="cpu"')],
}


def unused() -> None:
    """Do without the modules that InfCam's runner does without."""
    sys.path.append(str(kit.NODES / "infcam"))
    importlib.import_module("infcam_runner.unused").install()


def make(code: Path, unidepth: Path, work: Path) -> None:
    """Write code/, code-on-cpu/, models/ as podkiln lays it, and upstream/models/ for upstream's script."""
    small = work / "code"
    shutil.copytree(code, small, ignore=shutil.ignore_patterns(".git", "assets", "*.mp4"))
    _replace(small, SMALLER)
    chance = torch.Generator().manual_seed(1)
    states = _states(small, unidepth, chance)
    hashes = sys.modules["diffsynth.models.utils"].hash_state_dict_keys
    known = [(DIT_HASH, hashes(states["dit"])), (T5_HASH, hashes(states["t5"]))]
    _replace(
        small, {"diffsynth/configs/model_config.py": known, "diffsynth/models/wan_video_dit.py": known[:1]}
    )
    shutil.copytree(small, work / "code-on-cpu")
    _replace(work / "code-on-cpu", ON_CPU)
    _save(states, unidepth, work / "models")
    _lay(work)


def _replace(folder: Path, changes: dict[str, list[tuple[str, str]]]) -> None:
    for name, pairs in changes.items():
        text = (folder / name).read_text()
        for old, new in pairs:
            if old not in text:
                sys.exit(f"{name} has no {old}: it is of another commit than this was written for.")
            text = text.replace(old, new)
        (folder / name).write_text(text)


def _states(code: Path, unidepth: Path, chance: Any) -> dict[str, dict[str, Any]]:
    """Return random weights of every model, by name."""
    unused()
    sys.path.insert(0, str(code))
    import diffsynth.models.wan_video_dit as dit_module  # noqa: PLC0415
    from diffsynth.models.wan_video_dit import SelfAttentionPre, WanModel, WanModelStateDictConverter  # noqa: PLC0415
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder  # noqa: PLC0415
    from diffsynth.models.wan_video_vae import WanVideoVAE  # noqa: PLC0415
    from unidepth.models import UniDepthV2  # noqa: PLC0415

    dit_module.hash_state_dict_keys = lambda _: DIT_HASH
    _, settings = WanModelStateDictConverter().from_civitai({})
    dit = WanModel(**settings)
    states = {"dit": kit.random_state(dit, chance)}
    width = settings["dim"]
    for block in dit.blocks:  # as upstream's script adds them
        block.self_attn_pre = SelfAttentionPre(width, settings["num_heads"])
        block.modulation0 = torch.nn.Parameter(torch.randn(1, 6, width))
        block.cam_encoder = torch.nn.Linear(16, width)
        block.zero_conv = torch.nn.Conv3d(width, width, kernel_size=(1, 1, 1))
    states["infcam"] = kit.random_state(dit, chance)
    states["t5"] = kit.random_state(WanTextEncoder(), chance)
    vae = kit.random_state(WanVideoVAE(), chance)
    states["vae"] = {name.removeprefix("model."): value for name, value in vae.items()}
    config = json.loads((unidepth / "configs/config_v2_vits14.json").read_text())
    states["unidepth"] = _near_its_start(UniDepthV2(config), chance)
    return states


def _near_its_start(model: Any, chance: Any) -> dict[str, Any]:
    """Return random weights close to the initial ones: the focal length is an exponential of the output."""
    random, initial = kit.random_state(model, chance), model.state_dict()
    return {
        name: value + 0.2 * (random[name] - value) if value.is_floating_point() else value
        for name, value in initial.items()
    }


def _save(states: dict[str, dict[str, Any]], unidepth: Path, models_folder: Path) -> None:
    """Write the weights where variants/models/infcam.yaml puts them."""
    own, shared = models_folder / "infcam", models_folder / "flash_portrait/Wan2.1-I2V-14B-720P"
    for folder in (own / "InfCam", own / "unidepth-v2-vitl14", own / "Wan-AI/Wan2.1-T2V-1.3B", shared):
        folder.mkdir(parents=True)
    torch.save(states["infcam"], own / "InfCam/step35000.ckpt")
    save_file(states["unidepth"], own / "unidepth-v2-vitl14/model.safetensors")
    shutil.copyfile(unidepth / "configs/config_v2_vits14.json", own / "unidepth-v2-vitl14/config.json")
    save_file(states["dit"], own / "Wan-AI/Wan2.1-T2V-1.3B/diffusion_pytorch_model.safetensors")
    torch.save(states["t5"], shared / "models_t5_umt5-xxl-enc-bf16.pth")
    torch.save(states["vae"], shared / "Wan2.1_VAE.pth")
    _tokenizer(shared / "google/umt5-xxl")


def _tokenizer(folder: Path) -> None:
    """Write a tokenizer that knows single characters."""
    words = [
        "<pad>",
        "</s>",
        "<unk>",
        *(f"▁{chr(each)}" for each in range(33, 127)),
        *map(chr, range(33, 127)),
    ]
    core = Tokenizer(models.Unigram([(word, -float(at)) for at, word in enumerate(words)], unk_id=2))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    T5TokenizerFast(tokenizer_object=core, extra_ids=0).save_pretrained(folder)
    (folder / "spiece.model").touch()  # of which the fast tokenizer needs nothing


def _lay(work: Path) -> None:
    """Give upstream's script its own folders, with links to the weights."""
    base = work / "upstream/models"
    base.mkdir(parents=True)
    own, shared = work / "models/infcam", work / "models/flash_portrait/Wan2.1-I2V-14B-720P"
    (base / "InfCam").symlink_to(own / "InfCam")
    (base / "unidepth-v2-vitl14").symlink_to(own / "unidepth-v2-vitl14")
    wan = base / "Wan-AI/Wan2.1-T2V-1.3B"
    wan.mkdir(parents=True)
    (wan / "diffusion_pytorch_model.safetensors").symlink_to(
        own / "Wan-AI/Wan2.1-T2V-1.3B/diffusion_pytorch_model.safetensors"
    )
    for name in ("models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth", "google"):
        (wan / name).symlink_to(shared / name)
