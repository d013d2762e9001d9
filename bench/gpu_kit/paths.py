"""Where things are on the machine that is measured."""

from __future__ import annotations

import sys
from pathlib import Path

KIT = Path(__file__).resolve().parent
DOOR, BEHIND = 8188, 18188  # as start.sh has them
NGINX = Path("/usr/sbin/nginx")
_VENV = Path("/opt/venv/bin/python")


def python() -> str:
    """Return the Python that runs ComfyUI: the image's, or else this one."""
    return str(_VENV) if _VENV.exists() else sys.executable


def port() -> int:
    """Return where ComfyUI answers: at the door, or behind it where no nginx is there to be one."""
    return DOOR if NGINX.exists() else BEHIND
