"""What `decide` hands over to start.sh about the volume: three files in the run folder.

`comfyui.env` holds variables (NAME=value, each followed by a NUL byte), `volume_paths.yaml` is an
--extra-model-paths-config for ComfyUI, and `constraints.txt` holds pip to the image's versions. `nodes.fetch`
is there where code of custom nodes has to be fetched before ComfyUI starts; `nodes.seen` names the nodes that
were there, for those that come later (overlay/sitecustomize.py). `nodes.json`, what became of those that were
fetched, is written later, by the fetch (source_trees/nodes.py).
"""

from __future__ import annotations

import contextlib
import json
import os
from types import MappingProxyType

from pod.util import files
from pod.util.dataclass import dataclass
from pod.volume import package_overlay
from pod.volume.volume import FOLDERS, PATHS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from pod.volume.volume import Volume

ENVIRONMENT = "comfyui.env"
FETCH = "nodes.fetch"
FETCHED = "nodes.json"
SEEN = "nodes.seen"


@dataclass(frozen=True)
class RunNodes:
    """What custom nodes of the image need.

    `environment` are their variables, `folders` those on the volume that these name. `fetched` is where nodes
    will lie that are fetched; None: nothing is. `listed`: ComfyUI loads what a whitelist of ours names.
    """

    environment: Mapping[str, str] = MappingProxyType({})
    folders: tuple[str, ...] = ()
    fetched: str | None = None
    listed: bool = False

    def make(self, run: Path) -> None:
        """Make the folders, and say whether something has to be fetched. Raises OSError."""
        for folder in self.folders:
            with contextlib.suppress(OSError):  # the node says what it cannot write
                os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - one of the user's may be a link
        for told in (FETCH, FETCHED):  # by the start before
            (run / told).unlink(missing_ok=True)
        if self.fetched is not None:
            os.makedirs(self.fetched, exist_ok=True)  # noqa: PTH103 - without it ComfyUI would not start
            files.replace(run / FETCH, "")


def write(
    volume: Volume, environ: Mapping[str, str], root: Path, run: Path, nodes: RunNodes | None = None
) -> None:
    """Write the files. Raises OSError, and PodError where the image is damaged."""
    nodes = nodes or RunNodes()
    nodes.make(run)
    own = {name: value for name, value in nodes.environment.items() if not environ.get(name)}
    variables = own | volume.environment(environ, str(root))
    if nodes.listed:
        # The image's own are left out: one that comes onto the volume under such a name is the user's.
        files.write_json(run / SEEN, {"folders": list(volume.node_folders), "names": list(volume.nodes.own)})
        variables["PODKILN_NODES_SEEN"] = f"{run / SEEN}"
        variables["PYTHONPATH"] = package_overlay.python_path(environ, str(root))
    write_environment(run, variables)
    node_folders = [*volume.node_folders, *([nodes.fetched] if nodes.fetched else [])]
    places: dict[str, dict[str, list[str]]] = {"folders": {}, "webui": {}}
    if volume.models or volume.webui:
        places = files.read_image_data(root / FOLDERS, _places)
    files.replace(
        run / PATHS,
        paths_yaml(node_folders, volume.models, places["folders"], volume.webui, places["webui"]),
    )
    if not (
        run / package_overlay.CONSTRAINTS
    ).exists():  # the first start of this container sees the image as it was made
        site = package_overlay.site(environ.get("PODKILN_VENV") or package_overlay.VENV)
        files.replace(run / package_overlay.CONSTRAINTS, package_overlay.constraints_text(site))


def write_environment(run: Path, variables: Mapping[str, str]) -> None:
    """Write the variables alone. Raises OSError."""
    files.replace(run / ENVIRONMENT, "".join(f"{name}={value}\0" for name, value in variables.items()))


def paths_yaml(
    node_folders: Sequence[str],
    model_folders: Sequence[str],
    kinds: Mapping[str, Sequence[str]],
    webuis: Sequence[str] = (),
    webui_kinds: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> str:
    """Return the file of folders that only a start can know.

    Each default folder goes before those named earlier (ComfyUI, utils/extra_config.py), so the one that new
    nodes are to be installed into is named last. ComfyUI's boot ends at a folder of nodes that is not there
    (main.py, execute_prestartup_script), so only those that are there are named.

    Args:
        node_folders: Folders of custom nodes, the first for new ones.
        model_folders: Models folders, in the order in which they are searched.
        kinds: The names of the folders below each, by ComfyUI's key.
        webuis: Roots of other programs, in the order in which they are searched.
        webui_kinds: Where they keep which kind of model.
    """
    lines = ["# Written by podkiln at this start: what is on the volume beside $WORKSPACE/models."]
    if node_folders:
        lines += ["nodes:", "  is_default: true", *_value("custom_nodes", list(reversed(node_folders)))]
    for title, roots, places in (("models", model_folders, kinds), ("webui", webuis, webui_kinds)):
        for number, folder in enumerate(roots, 1):
            lines += [f"{title}_{number}:", f"  base_path: {json.dumps(folder)}"]
            for kind, names in places.items():
                lines += _value(kind, names)
    return "\n".join([*lines, *([] if len(lines) > 1 else ["{}"])]) + "\n"


def _value(key: str, lines: Sequence[str]) -> list[str]:
    """Return one key with a block of lines: a YAML list would crash ComfyUI.

    Names that are no UTF-8 are written with escapes, since ComfyUI reads the file as strict UTF-8; its parser
    gives back what os.listdir would (surrogates).
    """
    if any(not line.isascii() for line in lines):
        return [f"  {key}: {json.dumps(chr(10).join(lines))}"]
    return [f"  {key}: |", *(f"    {line}" for line in lines)]


def _places(data: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    return {"folders": data["folders"], "webui": data.get("webui", {})}
