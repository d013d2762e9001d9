"""ComfyUI while it runs: started, watched, logged, restarted, ended."""
