"""The one custom node that ComfyUI brings along, without what it does."""

NODE_CLASS_MAPPINGS: dict[str, type] = {}
