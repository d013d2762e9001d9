"""Where things are kept that can be made again (XDG base directory specification)."""

from __future__ import annotations

import os
from pathlib import Path


def path() -> Path:
    """Return podkiln's folder there: XDG_CACHE_HOME/podkiln, or ~/.cache/podkiln."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root).absolute() / "podkiln"
