"""A custom node without classes: ComfyUI's template browser shows what lies in its example_workflows/."""

NODE_CLASS_MAPPINGS: dict[str, type] = {}
