"""Put the packages for custom nodes at the end of sys.path: they add to the image's, and replace none.

Python imports this module at its start where PYTHONPATH leads to it, which is for ComfyUI and its children.
"""

import os
import site
import sys

_PLACE = os.environ.get("PODKILN_OVERLAY", "")


def _add(place: str) -> None:
    try:
        # The volume is shared: a FIFO in its place must not stop Python, nor a link lead it elsewhere.
        file = os.open(f"{place}/current", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            name = os.read(file, 4096).decode().strip()
        finally:
            os.close(file)
    except (OSError, ValueError):
        return  # nothing has been installed, or the volume is gone
    if name:
        site.addsitedir(f"{place}/{name}")


if _PLACE and sys.prefix != sys.base_prefix:  # a virtual environment: ComfyUI's
    _add(_PLACE)
