"""Where ComfyUI's folders lie in this pod, and which of them outlive it.

What is on the volume (outputs, inputs, settings, custom nodes, models) is used where it lies. What belongs to
one pod alone lies in the container: temporary files, and the database, which newer ComfyUI locks.
"""

from __future__ import annotations

import re

from pod.util.dataclass import dataclass, field
from pod.volume import layout, package_overlay
from pod.volume.custom_nodes import INSTALL, USUAL, Nodes
from pod.volume.node_requirements import normalized

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LOCAL = "/var/lib/podkiln"
RUN = "/run/podkiln"
PATHS = "volume_paths.yaml"  # in the run folder
FOLDERS = "folders.json"  # in the image: which folders hold the files of which kind of model


@dataclass(frozen=True)
class Volume:
    """Where everything lies.

    `root` is the volume; `workspace` is the volume too, or the folder that stands in for it. `local` and
    `run` are this container's alone. `models` are models folders beside `workspace`/models, `node_folders`
    those of custom nodes, of which the first gets new ones. `webui` are folders of other programs with models
    in them, `links` files of ComfyUI's with further folders. `modules` are those of the Python modules asked
    for that `overlay` holds. `responsive` is false for a volume that hangs or may not be read. `warnings` are
    sentences; `problems` are those of them that are about the volume itself.
    """

    root: str
    workspace: str
    output: str
    input: str
    user: str
    local: str = LOCAL
    run: str = RUN
    models: tuple[str, ...] = ()
    webui: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    node_folders: tuple[str, ...] = ()
    nodes: Nodes = field(default_factory=Nodes)
    overlay: str | None = None
    modules: tuple[str, ...] = ()
    responsive: bool = True
    problems: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def arguments(self) -> tuple[str, ...]:
        """Return ComfyUI's arguments for its folders. The ones to keep nodes out are `nodes.arguments()`."""
        return (
            f"--output-directory={self.output}",
            f"--input-directory={self.input}",
            f"--user-directory={self.user}",
            f"--temp-directory={self.local}",
            f"--database-url=sqlite:///{self.local}/comfyui.db",
            # Each file's default folders go before those named earlier, so ours come last.
            *(f"--extra-model-paths-config={link}" for link in self.links),
            f"--extra-model-paths-config={self.run}/{PATHS}",
        )

    def places(self) -> dict[str, str]:
        """Return the variables that say where it is."""
        found = {"WORKSPACE": self.workspace}
        if self.workspace != self.root:
            found["PODKILN_VOLUME"] = self.root if self.responsive else self.workspace
        return found

    def environment(self, environ: Mapping[str, str], root: str) -> dict[str, str]:
        """Return the variables that ComfyUI, and what runs beside it, get from this. `root`: /opt/podkiln."""
        found = self.places()
        found |= package_overlay.constraints(environ, self.run)
        if self.overlay:
            found |= package_overlay.environment(environ, root, self.overlay)
        return found

    def has(self, module: str, package: str) -> bool:
        """Whether packages on the volume hold a module, or will once what custom nodes lack is installed."""
        if module in self.modules:
            return True
        wanted = (word for one in self.nodes.loaded for word in one.missing)
        names = {normalized(re.split(r"[^A-Za-z0-9._-]", word, maxsplit=1)[0]) for word in wanted}
        return self.nodes.wish == INSTALL and normalized(package) in names

    def to_json(self) -> dict[str, Any]:
        """Return the entry of decision.json."""
        return {
            "root": self.root,
            "workspace": self.workspace,
            "output": self.output,
            "input": self.input,
            "user": self.user,
            "local": self.local,
            "models": list(self.models),
            "webui": list(self.webui),
            "links": list(self.links),
            "custom_nodes": list(self.node_folders),
            "responsive": self.responsive,
            "problems": list(self.problems),
            "left_out": [one.node for one in self.nodes.left_out],
            "lacking": {one.node: list(one.missing) for one in self.nodes.lacking},
        }


def usual(workspace: str) -> Volume:
    """Return what a fresh volume that can be written gives: what `./build.py flags` counts on."""
    new = layout.fresh(workspace)
    nodes = Nodes(names=USUAL)
    return Volume(new.root, new.root, new.output, new.input, new.user, node_folders=new.nodes, nodes=nodes)
