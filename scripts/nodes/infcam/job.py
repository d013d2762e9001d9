"""What InfCam's process is given: a folder that looks to upstream's script like its own, and arguments."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from . import camera_path
from .pod_facts import NodeError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FRAMES: Final = "frames.npy"
"""What comes in: 8-bit RGB, [frames, height, width, 3]."""
RESULT: Final = "result.npy"
"""What goes out, in the same form."""
REQUEST: Final = "request.json"
CAMERAS: Final = "cameras.json"
SOURCE: Final = "source.mp4"
"""What upstream's script takes the frames for; there is no such file."""
CHECKPOINT: Final = "models/InfCam/step35000.ckpt"

_WAN: Final = "models/Wan-AI/Wan2.1-T2V-1.3B"
_TOKENIZER: Final = ("special_tokens_map.json", "spiece.model", "tokenizer.json", "tokenizer_config.json")
_SHARED: Final = "flash_portrait/Wan2.1-I2V-14B-720P"
WEIGHTS: Final = {
    CHECKPOINT: "infcam/InfCam/step35000.ckpt",
    "models/unidepth-v2-vitl14/model.safetensors": "infcam/unidepth-v2-vitl14/model.safetensors",
    "models/unidepth-v2-vitl14/config.json": "infcam/unidepth-v2-vitl14/config.json",
    f"{_WAN}/diffusion_pytorch_model.safetensors": (
        "infcam/Wan-AI/Wan2.1-T2V-1.3B/diffusion_pytorch_model.safetensors"
    ),
    f"{_WAN}/models_t5_umt5-xxl-enc-bf16.pth": f"{_SHARED}/models_t5_umt5-xxl-enc-bf16.pth",
    f"{_WAN}/Wan2.1_VAE.pth": f"{_SHARED}/Wan2.1_VAE.pth",
    **{f"{_WAN}/google/umt5-xxl/{name}": f"{_SHARED}/google/umt5-xxl/{name}" for name in _TOKENIZER},
}
"""Where upstream's script looks for a file, and where variants/models/infcam.yaml puts it below models/."""


@dataclass(frozen=True)
class Wishes:
    """What the node was asked for, as far as upstream's script has an argument for it."""

    prompt: str
    preset: str = camera_path.PRESETS[0]
    own_path: str = ""
    """JSON of one's own camera path; empty for the preset."""
    frames: int = camera_path.FRAMES
    width: int = 832
    height: int = 480
    steps: int = 20
    cfg: float = 5.0
    zoom: float = 1.0
    find_intrinsics: bool = True
    """Whether UniDepth is asked for the camera's focal length; else upstream takes 24 mm."""
    seed: int = 0


def check(wishes: Wishes, frames: int) -> None:
    """Raise NodeError for what upstream's script could not do, or would do to other sizes than asked for.

    Args:
        wishes: What is asked for.
        frames: How many frames there are.
    """
    if wishes.frames % camera_path.STEP != 1 or not 1 < wishes.frames <= camera_path.FRAMES:
        raise NodeError(f"InfCam films 5, 9, 13 ... or {camera_path.FRAMES} frames, not {wishes.frames}.")
    if frames < wishes.frames:
        raise NodeError(
            f"InfCam needs {wishes.frames} frames, and the video has {frames}: "
            "give a longer one, or ask for fewer."
        )
    for name, size in (("width", wishes.width), ("height", wishes.height)):
        if size % 16 or size <= 0:
            raise NodeError(f"InfCam's {name} is a multiple of 16, which {size} is not.")
    if wishes.own_path.strip():
        camera_path.own(wishes.own_path, wishes.frames)
    else:
        camera_path.preset(wishes.preset)


def prepare(folder: Path, wishes: Wishes, weights: Mapping[str, Path], code: Path, mode: str) -> Path:
    """Write everything but the frames; returns the request, which is the process's argument.

    Args:
        folder: Of this job alone.
        wishes: Checked.
        weights: Where each value of WEIGHTS lies.
        code: Upstream's.
        mode: One of pod_facts.MEMORY_MODES.
    """
    for place, name in WEIGHTS.items():
        link = folder / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(weights[name])
    number = _cameras(folder / CAMERAS, wishes, code)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file_name", "text"), (SOURCE, wishes.prompt)])
    request = folder / REQUEST
    request.write_text(
        json.dumps({"code": str(code), "mode": mode, "arguments": _arguments(wishes, number)}),
        encoding="utf-8",
    )
    return request


def _cameras(path: Path, wishes: Wishes, code: Path) -> int:
    """Write the camera path; returns the number of its camera."""
    if wishes.own_path.strip():
        path.write_text(json.dumps(camera_path.own(wishes.own_path, wishes.frames)), encoding="utf-8")
        return camera_path.OWN
    shutil.copyfile(code / "sample_data/cameras/camera_extrinsics_10types.json", path)
    return camera_path.preset(wishes.preset)


def _arguments(wishes: Wishes, camera: int) -> list[str]:
    """Return the arguments of upstream's inference_infcam.py."""
    values: dict[str, Any] = {
        "cam_type": camera,
        "ckpt_path": CHECKPOINT,
        "camera_extrinsics_path": CAMERAS,
        "dataset_path": ".",
        "metadata_file_name": "metadata.csv",
        "output_dir": "results",
        "num_frames": wishes.frames,
        "width": wishes.width,
        "height": wishes.height,
        "num_inference_steps": wishes.steps,
        "cfg_scale": wishes.cfg,
        "zoom_factor": wishes.zoom,
        "seed": wishes.seed,
    }
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    return [*words, "--k_from_unidepth"] if wishes.find_intrinsics else words
