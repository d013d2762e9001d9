"""What ComfyUI's Python environment asks for: a requirements file, in which the release's own list may stand.

The line `-r {comfyui}` is replaced by what the release itself asks for (podkiln.config.releases): so one file
says what goes with a CUDA, whichever release is built.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from podkiln.config import releases
from podkiln.util.quoting import cut

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant

_KEY = ("runtime", "python", "requirements")
_OTHER_FILE = re.compile(r"^(-r|-c|--requirement|--constraint)(\s+|=)(?P<file>\S+)$")


def path(described: LoadedVariant) -> Path:
    """Return the requirements file that a variant names, relative to the description that names it."""
    return beside(described, _KEY, described.spec.runtime.python.requirements)


def beside(described: LoadedVariant, location: tuple[str, ...], named: str) -> Path:
    """Return a file that a key names, relative to the description with the key. Raises DescriptionError."""
    owner = next((file for file in described.chain if file.has(location)), described.chain[-1])
    found = owner.path.parent / named
    with contextlib.suppress(OSError):  # a name that no file system takes
        if found.is_file():
            return found
    raise owner.error(location, f"there is no file {cut(str(found))}.")


def lines(described: LoadedVariant) -> list[str]:
    """Return the requirements without comments, those of the release in the place of its line.

    Raises DescriptionError, OSError and ValueError: a file that is not there, or is no text.
    """
    asked = path(described)
    return [
        each
        for line in plain_lines(asked)
        for each in (plain_lines(_of_release(described, asked)) if line == releases.INCLUDE else [line])
    ]


def composed(described: LoadedVariant) -> str | None:
    """Return the text to resolve, where that is not the file itself: it may name files beside it."""
    asked = path(described)
    if releases.INCLUDE not in plain_lines(asked):
        return None
    named = (
        f"{other[1]} {asked.parent.resolve() / other['file']}" if (other := _OTHER_FILE.match(line)) else line
        for line in lines(described)
    )
    return "\n".join(named) + "\n"


def _of_release(described: LoadedVariant, asked: Path) -> Path:
    release = described.spec.runtime.comfyui.version
    found = releases.requirements_path(release, described.flags)
    if not found.is_file():
        what = f"{asked} has the line `{releases.INCLUDE}`, and there is no file {cut(str(found))}."
        hint = f"`./build.py comfyui {release}{described.option}` writes it."
        raise described.error(("runtime", "comfyui"), what, hint=hint)
    return found


def plain_lines(file: Path) -> list[str]:
    """Return the lines of a requirements file that say something. Raises OSError, ValueError."""
    stripped = [line.split(" #")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in stripped if line and not line.startswith("#")]
