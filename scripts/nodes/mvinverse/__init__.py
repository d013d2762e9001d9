"""MVInverse for ComfyUI: materials and normals from views of a scene."""

from .node import MVInverse

NODE_CLASS_MAPPINGS = {"PodkilnMVInverse": MVInverse}
NODE_DISPLAY_NAME_MAPPINGS = {"PodkilnMVInverse": "MVInverse"}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
