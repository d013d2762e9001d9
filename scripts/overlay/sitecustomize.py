"""Put the packages for custom nodes at the end of sys.path: they add to the image's, and replace none.

And put nodes that have come while the pod runs onto ComfyUI's whitelist, where it has one: ComfyUI-Manager
installs a node and starts ComfyUI again, with the arguments of the pod's start.

Python imports this module at its start where PYTHONPATH leads to it, which is for ComfyUI and its children.
"""

import os
import site
import sys

_PLACE = os.environ.get("PODKILN_OVERLAY", "")
_SEEN = os.environ.get("PODKILN_NODES_SEEN", "")
_WHITELIST = "--whitelist-custom-nodes"


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


def _name_new_nodes(seen: str) -> None:
    """Name what is in the folders of nodes now, and was not when the arguments were chosen."""
    import json  # noqa: PLC0415 - the other Pythons of the pod do without it

    there: set[str] = set()
    try:
        with open(seen, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs 10 ms
            known = json.load(file)
        folders, names = [*known["folders"]], {*known["names"], "__pycache__"}
    except (OSError, ValueError, LookupError, TypeError):
        return
    for folder in folders:
        try:
            there.update(os.listdir(folder))  # noqa: PTH208
        except (OSError, ValueError, TypeError):
            continue  # it is gone, or its volume is: nothing in it could be loaded
    new = sorted(name for name in there - names if not name.startswith("-"))
    at = sys.argv.index(_WHITELIST) + 1
    sys.argv[at:at] = [name for name in new if name not in sys.argv]


if _SEEN and _WHITELIST in sys.argv and os.path.basename(sys.argv[0]) == "main.py":  # noqa: PTH119
    _name_new_nodes(_SEEN)
if _PLACE and sys.prefix != sys.base_prefix:  # a virtual environment: ComfyUI's
    _add(_PLACE)
