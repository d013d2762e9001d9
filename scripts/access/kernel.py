"""ComfyUI's Python as a Jupyter kernel: all packages of ComfyUI, and Jupyter's own only behind them."""

from __future__ import annotations

import sys

sys.path[0] = ""  # as in a shell: the notebook's folder, not this one
sys.path.append(f"/opt/jupyter/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")

from ipykernel import kernelapp  # type: ignore[import-not-found] # noqa: E402 - found by the line above

kernelapp.launch_new_instance()
