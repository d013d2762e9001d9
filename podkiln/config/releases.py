"""A release of ComfyUI as data: what `./build.py comfyui` reads off its source, in three files.

`flags/comfyui-V.yaml` has the commit and the flags, `flags/folders-V.yaml` the model folders, and
`python/comfyui-V.in` the Python packages that it asks for. They lie in variants/, or in folders of the same
names beside a variant of one's own. A commit that is no release is called by the release before it and its
first digits: 0.33.0-783545f689a0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from podkiln.config import document
from podkiln.config.document import ROOT, StrictModel, TupleOf
from podkiln.config.fields import FlagName, Identifier, Release, Revision
from podkiln.config.repository_url import RepositoryUrl
from podkiln.errors import DescriptionError
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from podkiln.config.document import Document

SHIPPED: Final = ROOT / "variants" / "flags"
FOLDER: Final = "flags"
INCLUDE: Final = "-r {comfyui}"
"""The line of a requirements file that stands for what the release asks for."""


class ParsedFlag(StrictModel):
    """A flag as the release's parser has it; the keys are explained at the head of each file."""

    name: FlagName
    arity: Literal["none", "one", "optional", "any", "some"] = "none"
    type: Literal["str", "int", "float", "file", "folder"] = "str"
    choices: TupleOf[str] = ()
    most: Annotated[int, Field(gt=0)] | None = None
    group: str | None = None
    repeat: bool = False
    default: str | int | float | None = None
    action: str | None = None


class ReleaseFile(StrictModel):
    """flags/comfyui-V.yaml."""

    comfyui: Release
    repo: RepositoryUrl
    commit: Revision
    tree: Revision
    flags: TupleOf[ParsedFlag] = Field(min_length=1)


class FoldersFile(StrictModel):
    """flags/folders-V.yaml."""

    comfyui: Release
    commit: Revision
    folders: TupleOf[Identifier] = Field(min_length=1)
    outside: TupleOf[Identifier]
    legacy: dict[Identifier, Identifier]


def flags_path(release: str, folder: Path) -> Path:
    """Return where a release's flags lie."""
    return folder / f"comfyui-{release}.yaml"


def folders_path(release: str, folder: Path) -> Path:
    """Return where a release's model folders lie."""
    return folder / f"folders-{release}.yaml"


def requirements_path(release: str, folder: Path) -> Path:
    """Return where a release's Python requirements lie: in the folder python beside that of its flags."""
    return folder.parent / "python" / f"comfyui-{release}.in"


def find(release: str, folders: Sequence[Path]) -> Path | None:
    """Return the first of some folders that has a release; None where none has."""
    return next((folder for folder in folders if flags_path(release, folder).is_file()), None)


def names(folders: Sequence[Path]) -> list[str]:
    """Return the releases that are described in some folders, in alphabetical order."""
    found = {
        path.stem.removeprefix("comfyui-") for folder in folders for path in folder.glob("comfyui-*.yaml")
    }
    return sorted(found)


def load(release: str, folder: Path = SHIPPED) -> tuple[ReleaseFile, Document]:
    """Read a release's own file. Raises DescriptionError: there is none, or it is wrong."""
    path = flags_path(release, folder)
    if not path.is_file():
        raise unknown(release, [folder], what=f"{path}: the flags of ComfyUI {release} are not described.")
    file = document.load(path)
    return read(release, file), file


def read(release: str, file: Document) -> ReleaseFile:
    """Read what a release's own file says. Raises DescriptionError."""
    found = file.parse(ReleaseFile)
    if found.comfyui != release:
        raise file.error(("comfyui",), f"the file is named after {release}, but says {found.comfyui}.")
    return found


def load_folders(release: str, folder: Path = SHIPPED) -> FoldersFile:
    """Read a release's model folders. Raises DescriptionError: there are none, or of another commit."""
    path = folders_path(release, folder)
    if not path.is_file():
        raise DescriptionError(
            f"There is no {path.name}: the model folders of ComfyUI {release} are not known.",
            hint=f"`./build.py comfyui {release}` reads them off its source.",
        )
    file = document.load(path)
    found = read_folders(release, file)
    if flags_path(release, folder).is_file():
        commit = load(release, folder)[0].commit
        if found.commit != commit:
            raise file.error(
                ("commit",), f"its flags are those of another commit, {commit}: read both again."
            )
    return found


def read_folders(release: str, file: Document) -> FoldersFile:
    """Read a release's model folders: each named once, and by old names. Raises DescriptionError."""
    found = file.parse(FoldersFile)
    if found.comfyui != release:
        raise file.error(("comfyui",), f"the file is named after {release}, but says {found.comfyui}.")
    known = [*found.folders, *found.outside]
    for key, names in (("folders", found.folders), ("outside", found.outside)):
        for number, name in enumerate(names):
            if known.count(name) > 1:
                raise file.error((key, number), f"{name} is duplicated.")
    for old, name in found.legacy.items():
        if old == name or old in found.folders:
            raise file.error(("legacy", old), f"{old} is a folder itself, and no old name of one.")
        if name not in known:
            raise file.error(("legacy", old), f"there is no folder {name}.")
    return found


def unknown(
    release: str, folders: Sequence[Path], *, what: str | None = None, option: str = ""
) -> DescriptionError:
    """Make the error for a release of which there is no data. `option`: names the variant in the command."""
    known = ", ".join(names(folders)) or "none"
    return DescriptionError(
        what or f"ComfyUI {shown(release)} is not described.",
        hint=f"Described: {known}. `./build.py comfyui {release}{option}` describes another release.",
    )
