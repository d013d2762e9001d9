"""The model folders that a ComfyUI version knows, and the old names that it still reads."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import StringConstraints

from podkiln.config import document, releases
from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.fields import Identifier, Phrase, Text
from podkiln.util.quoting import did_you_mean, shown

if TYPE_CHECKING:
    from pathlib import Path

OTHERS = "other-programs.yaml"
RelativePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")]


class Layout(StrictModel):
    """What another program has in a volume's root: signs of it, and what is said of each place."""

    signs: TupleOf[Text]
    places: dict[Text, Phrase]


class Elsewhere(StrictModel):
    """Folders of other programs that ComfyUI does not read: other names, and other places."""

    names: dict[Identifier, Identifier]
    places: TupleOf[RelativePath]
    layouts: TupleOf[Layout]


class OtherPrograms(StrictModel):
    """variants/flags/other-programs.yaml."""

    webui: dict[Identifier, TupleOf[RelativePath]]
    elsewhere: Elsewhere


class Folders(releases.FoldersFile):
    """One release's folders, in ComfyUI's own order, and those of other programs."""

    webui: dict[Identifier, TupleOf[RelativePath]]
    elsewhere: Elsewhere

    def places(self) -> dict[str, list[str]]:
        """Return for each folder key the directories below models/ that hold its files.

        Volumes that other images filled have the old names, so these are listed after the new ones.
        """
        return {
            folder: [folder, *(old for old, new in self.legacy.items() if new == folder)]
            for folder in self.folders
        }


def to_json(version: str, folder: Path = releases.SHIPPED) -> dict[str, Any]:
    """Return folders.json, from which a pod names the models folders that it finds on its volume."""
    found = load(version, folder)
    return {
        "schema": 1,
        "comfyui": version,
        "folders": found.places(),
        "webui": {kind: list(paths) for kind, paths in found.webui.items()},
        "elsewhere": found.elsewhere.model_dump(mode="json"),
    }


def problem(
    version: str, folder: str, *, foreign: bool, described: Path = releases.SHIPPED
) -> tuple[str, str | None] | None:
    """Return what is wrong with a model's folder, and a hint; None where files in it are read.

    Args:
        version: ComfyUI's. Of one whose folders are not known, nothing is said here.
        folder: Below models/, such as loras or checkpoints/sdxl.
        foreign: Whether the model requires a node or a program, which may bring folders of its own.
        described: Where the release's own files lie.
    """
    top = folder.partition("/")[0]
    if not releases.folders_path(version, described).is_file():
        return None
    found = load(version, described)
    known = [*found.folders, *found.legacy]
    if top in known:
        return None
    alike = next((each for each in known if _plain(each) == _plain(top)), None)
    if foreign and not alike:
        return None
    what = f"ComfyUI {version} has no models folder {shown(top)}."
    if meant := did_you_mean(alike or top, known):
        return f"{what} {meant}", None
    return what, f"There are: {', '.join(found.folders)}. A node's own folder needs `requires: [node:NAME]`."


def _plain(name: str) -> str:
    """Return what is left of a name without what people get wrong: case, plural, dashes."""
    return re.sub(r"[^a-z0-9]", "", name.lower()).rstrip("s")


@cache
def load(version: str, folder: Path = releases.SHIPPED) -> Folders:
    """Load the folders of a ComfyUI release. Raises DescriptionError.

    Args:
        version: The release.
        folder: Where its own files lie.
    """
    found = releases.load_folders(version, folder)
    others = document.load(releases.SHIPPED / OTHERS).parse(OtherPrograms)
    return Folders(**found.model_dump(), **others.model_dump())
