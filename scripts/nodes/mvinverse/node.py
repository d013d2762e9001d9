"""The node: what it takes, what it returns, and how it says what is missing."""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Final

from . import pod_facts, sizes

TITLE: Final = "MVInverse"
MODEL: Final = "mvinverse"
CODE = "PODKILN_MVINVERSE"
ENABLE: Final = "ENABLE_MVINVERSE"
WITNESS: Final = "mvinverse/models/mvinverse.py"
WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"


class MVInverse:
    """Estimates the materials of a scene from one or more views of it."""

    CATEGORY = "podkiln/materials"
    DESCRIPTION = (
        "Estimates albedo, normals, roughness, metallic and shading from one or more views of one scene. "
        "All views are looked at together, so memory grows with their number. For non-commercial use."
    )
    RETURN_TYPES = ("IMAGE",) * 5
    RETURN_NAMES = ("albedo", "normal", "roughness", "metallic", "shading")
    OUTPUT_TOOLTIPS = (
        "The colour of the surfaces, without light.",
        "Where the surfaces face, from the camera; -1..1 is drawn as 0..1.",
        "How rough the surfaces are, as grey.",
        "How metallic the surfaces are, as grey.",
        "The light on the surfaces.",
    )
    FUNCTION = "estimate"
    _loaded: ClassVar[dict[tuple[str, ...], Any]] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        """Return ComfyUI's description of the inputs."""
        longest = {
            "default": sizes.LONGEST,
            "min": sizes.PATCH,
            "max": 2048,
            "tooltip": "Larger images are made smaller. The maps have this size, in multiples of 14 pixels; "
            "upstream's own limit is 1024.",
        }
        mode = {
            "default": pod_facts.AUTO,
            "tooltip": "How far to offload; auto is what the pod's GPU_MEMORY_MODE says. "
            "sequential_cpu_offload has one part of the model on the card at a time.",
        }
        views = {"tooltip": "One or more views of one scene, all of one size."}
        return {
            "required": {"images": ("IMAGE", views), "longest_side": ("INT", longest)},
            "optional": {"memory_mode": ([pod_facts.AUTO, *pod_facts.MEMORY_MODES], mode)},
        }

    def estimate(self, images: Any, longest_side: int, memory_mode: str = pod_facts.AUTO) -> tuple[Any, ...]:
        """Return the five maps. Raises NodeError where something is missing or cannot be done."""
        height, width = images.shape[1:3]
        sizes.target(width, height, longest_side)
        mode, note = pod_facts.memory_mode(memory_mode, MODEL)
        if note:
            logging.getLogger(__name__).info(note)
        code = pod_facts.code_folder(TITLE, CODE, WITNESS)
        files = pod_facts.weights(TITLE, MODEL, (WEIGHTS, CONFIG), ENABLE)

        # Not above: they bring torch and ComfyUI, and what is missing can be said without.
        from . import comfy_memory, estimation, placement  # noqa: PLC0415

        key = (str(code), str(files[WEIGHTS]))
        if key not in self._loaded:
            self._loaded.clear()
            model = estimation.load(code, files[WEIGHTS], files[CONFIG])
            self._loaded[key] = comfy_memory.ComfyMemory(model)
        memory = self._loaded[key]
        with placement.placed(memory, mode, len(images)):
            return estimation.estimate(memory.model, estimation.Inputs(images, longest_side), memory.device)
