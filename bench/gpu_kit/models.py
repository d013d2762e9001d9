"""The models of random weights: their files, what they take, and how they are made."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from gpu_kit.paths import KIT, python
from gpu_kit.smi import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SMALL = 300_000_000
# Below models/, and the most bytes that each takes (weights.py).
FILES = {
    "sdxl": ("checkpoints/bench-sdxl.safetensors", 7_000_000_000),
    "wan-vae": ("vae/bench-wan-vae.safetensors", _SMALL),
    "wan14b-fp8": ("diffusion_models/bench-wan14b-fp8.safetensors", 14_600_000_000),
    "wan14b-fp16": ("diffusion_models/bench-wan14b-fp16.safetensors", 29_000_000_000),
    "sd15": ("checkpoints/bench-sd15.safetensors", 2_200_000_000),
    "wan-small": ("diffusion_models/bench-wan-small.safetensors", _SMALL),
    "flux-small": ("diffusion_models/bench-flux-small.safetensors", _SMALL),
    "flux-vae": ("vae/bench-flux-vae.safetensors", _SMALL),
    "flux2-small": ("diffusion_models/bench-flux2-small.safetensors", _SMALL),
    "flux2-vae": ("vae/bench-flux2-vae.safetensors", _SMALL),
    "hunyuan-small": ("diffusion_models/bench-hunyuan-small.safetensors", _SMALL),
    "qwen-small": ("diffusion_models/bench-qwen-small.safetensors", 1_000_000_000),
    "svd": ("checkpoints/bench-svd.safetensors", 4_800_000_000),
}
WORKFLOW_FILES = {
    "sdxl": ["sdxl"],
    "wan14b-fp8": ["wan-vae", "wan14b-fp8"],
    "wan14b-fp16": ["wan-vae", "wan14b-fp16"],
    "sd15": ["sd15"],
    "wan-small": ["wan-vae", "wan-small"],
    "flux-small": ["flux-vae", "flux-small"],
    "flux2-small": ["flux2-vae", "flux2-small"],
    # The VAEs of HunyuanVideo and Qwen-Image take latents of the same shape as Wan's.
    "hunyuan-small": ["wan-vae", "hunyuan-small"],
    "qwen-small": ["wan-vae", "qwen-small"],
    "svd": ["svd"],
}


def path_of(kind: str, workspace: Path) -> Path:
    """Return where a file lies on a volume."""
    return workspace / "models" / FILES[kind][0]


def lacking(workflows: Iterable[str], workspace: Path) -> int:
    """Return the bytes that are still to be written for workflows, whose half-made files give theirs back."""
    kinds = {kind for workflow in workflows for kind in WORKFLOW_FILES[workflow]}
    absent = [kind for kind in kinds if not path_of(kind, workspace).exists()]
    parts = [_part(path_of(kind, workspace)) for kind in absent]
    return sum(FILES[kind][1] for kind in absent) - sum(
        part.stat().st_size for part in parts if part.exists()
    )


def make(workflow: str, workspace: Path) -> int:
    """Make the files that a workflow needs and the volume lacks; returns their bytes. Raises MachineError."""
    size = 0
    for kind in WORKFLOW_FILES[workflow]:
        path = path_of(kind, workspace)
        if not path.exists():
            command = [python(), str(KIT / "weights.py"), "/opt/ComfyUI", kind, str(path)]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
            if done.returncode or not path.exists():
                _part(path).unlink(missing_ok=True)
                last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
                raise MachineError(f"the model {kind} could not be made at {path}: {last}")
        size += path.stat().st_size
    return size


def _part(path: Path) -> Path:
    """Return where weights.py writes before a file is whole."""
    return path.with_name(path.name + ".part")
