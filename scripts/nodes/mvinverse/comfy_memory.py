"""ComfyUI's memory manager: it makes room for MVInverse, and may take it off the card later."""

from __future__ import annotations

from typing import Any

import comfy.model_management as management
import comfy.model_patcher


class ComfyMemory:
    """Loads one model onto ComfyUI's device, and counts it among ComfyUI's own."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device = management.get_torch_device()
        self._patcher = comfy.model_patcher.ModelPatcher(
            model, load_device=self.device, offload_device=management.unet_offload_device()
        )

    def make_room(self, size: int) -> None:
        """Have ComfyUI's models give way until `size` bytes are free."""
        management.free_memory(size, self.device)

    def load(self, room: int) -> None:
        """Put the model onto the device, whole: upstream's layers cannot run from two places.

        Args:
            room: Bytes that have to be free beside it.
        """
        management.load_models_gpu([self._patcher], memory_required=room, force_full_load=True)
        self.model.to(self.device)  # with --novram ComfyUI would leave it where it is

    def unload(self) -> None:
        """Take the model off the device."""
        management.unload_model_and_clones(self._patcher)
        self.model.to("cpu")
        management.soft_empty_cache()
