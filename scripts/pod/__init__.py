"""What runs inside a pod: standard library only, so that nothing needs installing before ComfyUI starts."""
