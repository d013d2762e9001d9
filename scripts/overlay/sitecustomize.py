"""Put the packages for custom nodes at the end of sys.path: they add to the image's, and replace none.

Python imports this module at its start where PYTHONPATH leads to it, which is for ComfyUI and its children.
"""

import os
import site
import sys

_PLACE = os.environ.get("PODKILN_OVERLAY", "")


def _add(place: str) -> None:
    try:
        with open(f"{place}/current", encoding="utf-8") as file:  # noqa: PTH123 - every start of Python pays for this
            site.addsitedir(f"{place}/{file.read().strip()}")
    except OSError:
        pass  # nothing has been installed, or the volume is gone


if _PLACE and sys.prefix != sys.base_prefix:  # a virtual environment: ComfyUI's
    _add(_PLACE)
