"""InfCam for ComfyUI: a video filmed again along another camera path."""

from .node import InfCam

NODE_CLASS_MAPPINGS = {"PodkilnInfCam": InfCam}
NODE_DISPLAY_NAME_MAPPINGS = {"PodkilnInfCam": "InfCam"}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
