"""The node: what it takes, what it returns, and how it says what is missing."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from . import camera_path, job, pod_facts, process

TITLE: Final = "InfCam"
MODEL: Final = "infcam"
CODE = "PODKILN_INFCAM"
ENABLE: Final = "ENABLE_INFCAM"
WITNESS: Final = "inference_infcam.py"


def _range(
    kind: str, default: float, least: float, most: float, step: float, tooltip: str
) -> tuple[str, Any]:
    """Return ComfyUI's description of a number."""
    return kind, {"default": default, "min": least, "max": most, "step": step, "tooltip": tooltip}


class InfCam:
    """Films a video again, along another camera path."""

    CATEGORY = "podkiln/video"
    DESCRIPTION = (
        "Films a video again along another camera path. It runs as a process of its own, for which ComfyUI's "
        "models leave the card. The code has no licence: all rights are its authors'."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("frames",)
    OUTPUT_TOOLTIPS = ("The frames of the new video. Upstream's script writes them at 30 a second.",)
    FUNCTION = "film"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """Return ComfyUI's description of the inputs."""
        own_path = (
            "Another path, in place of camera_path: JSON, a list of 4 x 4 camera-to-world matrices, one a "
            "frame or one for every fourth frame; x to the right, y down, z forward, in metres."
        )
        path = {"default": camera_path.PRESETS[0], "tooltip": "Upstream's paths."}
        find = "Ask UniDepth for the camera's focal length; else 24 mm are assumed."
        mode = "How far to offload; auto is what the pod's GPU_MEMORY_MODE says."
        return {
            "required": {
                "frames": ("IMAGE", {"tooltip": "The video, at least as many frames as are asked for."}),
                "camera_path": ([*camera_path.PRESETS], path),
                "prompt": ("STRING", {"multiline": True, "tooltip": "What the video shows."}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFF, "tooltip": "Of the noise."}),
                "steps": _range("INT", 20, 1, 100, 1, "Steps of the sampler."),
                "cfg": _range("FLOAT", 5.0, 1.0, 20.0, 0.1, "How closely the prompt is followed."),
                "num_frames": _range("INT", 81, 5, 81, 4, "Frames of the new video: 4n + 1."),
                "width": _range("INT", 832, 64, 1280, 16, "Upstream's is 832."),
                "height": _range("INT", 480, 64, 1280, 16, "Upstream's is 480."),
            },
            "optional": {
                "own_path": ("STRING", {"default": "", "multiline": True, "tooltip": own_path}),
                "zoom": _range("FLOAT", 1.0, 0.1, 10.0, 0.05, "The new focal length by the old one."),
                "find_intrinsics": ("BOOLEAN", {"default": True, "tooltip": find}),
                "memory_mode": ([pod_facts.AUTO, *pod_facts.MEMORY_MODES], {"tooltip": mode}),
            },
        }

    def film(
        self,
        frames: Any,
        *,
        memory_mode: str = pod_facts.AUTO,
        **wanted: Any,
    ) -> tuple[Any]:
        """Return the new frames. Raises NodeError where something is missing or cannot be done."""
        wishes = wishes_of(**wanted)
        job.check(wishes, len(frames))
        mode, note = pod_facts.memory_mode(memory_mode, MODEL)
        if note:
            logging.getLogger(__name__).info(note)
        code = pod_facts.code_folder(TITLE, CODE, WITNESS)
        weights = pod_facts.weights(TITLE, "", [*job.WEIGHTS.values()], ENABLE)

        from . import comfy_process, conversion  # noqa: PLC0415 - torch and ComfyUI, as above without

        with tempfile.TemporaryDirectory(prefix="infcam-") as folder:
            request = job.prepare(Path(folder), wishes, weights, code, mode)
            conversion.save(frames[: wishes.frames], Path(folder, job.FRAMES))
            comfy_process.run(process.command(request), process.environment(os.environ), Path(folder))
            return (conversion.load(Path(folder, job.RESULT)),)


def wishes_of(*, camera_path: str, num_frames: int, own_path: str = "", **rest: Any) -> job.Wishes:
    """Return what the node's inputs ask for."""
    return job.Wishes(preset=camera_path, own_path=own_path, frames=num_frames, **rest)
