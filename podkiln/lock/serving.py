"""The lock of the packages with which an image takes jobs (`serve`), and whether it still fits.

It lies in `serve/`, in a folder a runtime: `WAY.json` and the requirements file `WAY.txt`. It is made for the
runtime's layers alone, so all variants of a runtime use the same one, a user's own among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podkiln.config import serving
from podkiln.lock import locations, nodes, requirements, validation
from podkiln.lock.additions import PythonAdditions
from podkiln.lock.drift import damage
from podkiln.lock.schema import LockedLayer

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.schema import RuntimeLock


@dataclass(frozen=True)
class LockedServing:
    """What is locked of a way to serve, and where."""

    way: str
    folder: Path
    document: PythonAdditions

    @property
    def beside_none(self) -> bool:
        """Whether they lie in the image's own environment, since there is no ComfyUI to keep them from."""
        return self.way == serving.DIFFUSERS

    @property
    def requirements(self) -> str:
        """The text of the requirements file. Raises OSError."""
        return (self.folder / self.document.layer.file).read_text(encoding="utf-8")

    def pins(self) -> dict[str, str]:
        """Return the version of each package, by its name. Raises OSError."""
        return requirements.known_pins([self.requirements])


def read(described: LoadedVariant, runtime: RuntimeLock) -> tuple[LockedServing | None, list[str]]:
    """Return the lock that fits a variant, and what is wrong: one sentence each.

    Raises LockError: a damaged one.
    """
    way, wanted = described.spec.serve, serving.requirements(described)
    if way is None or not wanted:
        return None, []
    found = [each for folder in locations.serving_folders(described) if (each := at(folder, way))]
    for each in found:
        if each.document.asked == wanted and each.document.onto == nodes.onto(runtime):
            return each, damage(each.folder, each.document.layer)
    if found:
        return None, [
            f"serve: {way} was locked for something else than the runtime and its requirements now."
        ]
    return None, [
        f"serve: {way} is not locked: there is no {file_in(locations.serving_folders(described)[-1], way)}."
    ]


def at(folder: Path, way: str) -> LockedServing | None:
    """Return what is locked in a folder, whether it fits or not. Raises LockError: damaged."""
    try:
        return LockedServing(
            way, folder, validation.read(file_in(folder, way), PythonAdditions, hint=validation.DAMAGED)
        )
    except FileNotFoundError:
        return None


def file_in(folder: Path, way: str) -> Path:
    """Return the lock of a way in its folder."""
    return folder / f"{way}.json"


def layer_of(way: str, text: str) -> LockedLayer:
    """Return what is locked of a requirements file."""
    return LockedLayer.of(way, f"{way}.txt", text)
