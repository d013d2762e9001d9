"""`nodes`: the custom nodes of the image and of the volume; which of them ComfyUI loads, and what they lack.

python3 -I -S /opt/podkiln nodes               says so, and changes nothing
python3 -I -S /opt/podkiln nodes --install     puts what those of the volume lack onto it, for this image
python3 -I -S /opt/podkiln nodes --fetch       fetches code that no image holds, of nodes that are switched on

start.sh runs the latter two before ComfyUI starts. --fetch writes $PODKILN_RUN/nodes.json.
"""

from __future__ import annotations

import os
from pathlib import Path

from pod.decision import inspect_volume
from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.util import files
from pod.util.printable import printable
from pod.util.say import LONGEST_LINE, say
from pod.volume.custom_nodes import INSTALL, VARIABLE
from pod.volume.run_files import FETCHED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pod.volume.volume import Volume

_OPTIONS = ("--install", "--fetch")


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns 0, or 1 where not all could be installed or fetched. Raises PodError."""
    if unknown := [argument for argument in arguments if argument not in _OPTIONS]:
        raise PodError(f"nodes takes --install or --fetch, but got {unknown[0]!r}.", ARGUMENTS_REFUSED)
    status = 0
    if "--fetch" in arguments:
        from pod.source_trees import nodes  # noqa: PLC0415 - few pods have anything to fetch

        status = 0 if nodes.fetch(environ, say) else 1
    if "--install" in arguments:
        status = max(status, _install(environ))
    if not arguments:
        show_image(Path(environ.get("PODKILN_RUN") or "/run/podkiln"))
        _show(inspect_volume(environ))
    return status


def _install(environ: Mapping[str, str]) -> int:
    from pod.volume import node_packages, package_overlay  # noqa: PLC0415 - by who asked for it alone

    seen = inspect_volume({**environ, VARIABLE: INSTALL})
    venv = environ.get("PODKILN_VENV") or package_overlay.VENV
    return 0 if node_packages.serve(seen, venv, say) else 1


def show_image(run: Path) -> None:
    """Print what the start decided about the image's nodes, and what became of those that it fetched."""
    nodes = files.recall(run / "decision.json").get("nodes", [])
    fetched = files.recall(run / FETCHED).get("nodes", [])  # of a node its own code and that of others
    for each in nodes:
        state = "loaded" if each["loaded"] or each["own"] else "left out"
        print(printable(f"{each['id']}  {state}: {each['why']}", LONGEST_LINE))
        for one in fetched:
            if one["node"] == each["id"]:
                print(printable(f"{each['id']}  {one['message']}", LONGEST_LINE))


def _show(seen: Volume) -> None:
    print(f"folders   {', '.join(seen.node_folders)}")
    print(f"packages  {seen.overlay or 'none are installed for nodes'}")
    for one in seen.nodes.verdicts:
        for what, wants in (("conflicts", one.conflicts), ("lacks", one.missing), ("unclear", one.unclear)):
            if wants:
                print(printable(f"{one.node}  {what}: {', '.join(wants)}", LONGEST_LINE))
    for sentence in seen.nodes.warnings():
        say(sentence)
