"""What this pod is: its cards, its memory, its mounts."""
