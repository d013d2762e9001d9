"""`nodes`: the custom nodes of the volume; which of them ComfyUI may load, and what they lack.

python3 -I -S /opt/podkiln nodes               says so, and changes nothing
python3 -I -S /opt/podkiln nodes --install     puts what they lack onto the volume, for this image
"""

from __future__ import annotations

import os

from pod.decision import inspect_volume
from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.util.printable import printable
from pod.util.say import LONGEST_LINE, say
from pod.volume import node_packages, package_overlay
from pod.volume.custom_nodes import INSTALL, VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pod.volume.volume import Volume


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns 0, or 1 where not all packages could be installed. Raises PodError."""
    if unknown := [argument for argument in arguments if argument != "--install"]:
        raise PodError(f"nodes takes --install only, but got {unknown[0]!r}.", ARGUMENTS_REFUSED)
    seen = inspect_volume({**environ, VARIABLE: INSTALL} if arguments else environ)
    if not arguments:
        return _show(seen)
    venv = environ.get("PODKILN_VENV") or package_overlay.VENV
    return 0 if node_packages.serve(seen, venv, say) else 1


def _show(seen: Volume) -> int:
    print(f"folders   {', '.join(seen.node_folders)}")
    print(f"packages  {seen.overlay or 'none are installed for nodes'}")
    for one in seen.nodes.verdicts:
        for what, wants in (("conflicts", one.conflicts), ("lacks", one.missing), ("unclear", one.unclear)):
            if wants:
                print(printable(f"{one.node}  {what}: {', '.join(wants)}", LONGEST_LINE))
    for sentence in seen.nodes.warnings():
        say(sentence)
    return 0
