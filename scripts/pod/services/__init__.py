"""The ways into a pod: ssh, Jupyter, the login before ComfyUI."""
