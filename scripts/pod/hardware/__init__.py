"""What this pod is: its cards, its memory, its mounts, and whether ComfyUI can work on it."""
