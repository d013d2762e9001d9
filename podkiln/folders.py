"""The model folders that a ComfyUI version knows, and the old names that it still reads."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import StringConstraints

from podkiln import document
from podkiln.document import Many, Strict
from podkiln.errors import DescriptionError
from podkiln.model import Identifier, Revision
from podkiln.variant import SHIPPED, Version

RelativePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")]


class Folders(Strict):
    """One version's folders, in ComfyUI's own order."""

    comfyui: Version
    commit: Revision
    folders: Many[Identifier]
    outside: Many[Identifier]
    legacy: dict[Identifier, Identifier]
    webui: dict[Identifier, Many[RelativePath]]

    def places(self) -> dict[str, list[str]]:
        """Return for each folder key the directories below models/ that hold its files.

        Volumes that other images filled have the old names, so these are listed after the new ones.
        """
        return {
            folder: [folder, *(old for old, new in self.legacy.items() if new == folder)]
            for folder in self.folders
        }


def to_json(version: str) -> dict[str, Any]:
    """Return folders.json, from which a pod names the models folders that it finds on its volume."""
    return {"schema": 1, "comfyui": version, "folders": load(version).places(), "webui": _webui(version)}


def _webui(version: str) -> dict[str, list[str]]:
    return {kind: list(paths) for kind, paths in load(version).webui.items()}


@cache
def load(version: str) -> Folders:
    """Load the folders of a ComfyUI version. Raises DescriptionError."""
    path = SHIPPED / "flags" / f"folders-{version}.yaml"
    if not path.is_file():
        raise DescriptionError(
            f"There is no {path.name}: the model folders of ComfyUI {version} are not known.",
            hint="Read them off its folder_paths.py.",
        )
    return document.load(path).parse(Folders)
