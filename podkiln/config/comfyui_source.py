"""ComfyUI's source tree, read: what podkiln has to know of a release, none of it run."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from packaging.requirements import InvalidRequirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from podkiln.config import cli_args, folder_paths
from podkiln.config.fields import requirement
from podkiln.config.source_syntax import Module, content_of
from podkiln.errors import DescriptionError, SourceError
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.cli_args import ReadFlag
    from podkiln.config.folder_paths import ReadFolders

VERSION: Final = "comfyui_version.py"
REQUIREMENTS: Final = "requirements.txt"
PROJECT: Final = "pyproject.toml"
RELEASE: Final = r"[0-9]{1,9}(\.[0-9]{1,9}){1,5}"
_MARKS: Final = (VERSION, cli_args.FILE, folder_paths.FILE, REQUIREMENTS)


@dataclass(frozen=True)
class Source:
    """What a tree says.

    Attributes:
        version: What the tree calls itself.
        python: The versions of Python that it is for, as pip writes them; None where it does not say.
        flags: Its command line.
        folders: Its model folders.
        requirements: The lines of its requirements.txt that ask for something.
    """

    version: str
    python: str | None
    flags: tuple[ReadFlag, ...]
    folders: ReadFolders
    requirements: tuple[str, ...]


def read(tree: Path) -> Source:
    """Read a source tree.

    Raises SourceError: it is not ComfyUI's. Raises DescriptionError: a construct that is not understood.
    """
    missing = next((name for name in _MARKS if not (tree / name).exists()), None)
    if missing:
        raise _no_tree(tree, missing)
    return Source(
        version=version_of(tree),
        python=_python(tree / PROJECT),
        flags=cli_args.read(tree),
        folders=folder_paths.read(tree),
        requirements=_requirements(tree / REQUIREMENTS),
    )


def _no_tree(tree: Path, missing: str) -> SourceError:
    return SourceError(
        f"{tree} is not a source tree of ComfyUI: there is no {missing}.",
        hint="Name the folder that has main.py in it; before 0.3.0 there were no releases to describe.",
    )


def version_of(tree: Path) -> str:
    """Return what a tree calls itself. Raises SourceError and DescriptionError."""
    if not (tree / VERSION).exists():
        raise _no_tree(tree, VERSION)
    module = Module.read(tree / VERSION)
    for statement in module.tree.body:
        module.learn(statement)
    found = module.constants.get("__version__")
    if not isinstance(found, str) or not re.fullmatch(RELEASE, found):
        raise module.error(module.tree, "there is no `__version__` of numbers and dots here")
    return found


def _requirements(path: Path) -> tuple[str, ...]:
    found = []
    for number, raw in enumerate(_text(path).splitlines(), start=1):
        line = re.split(r"(?:^|\s)#", raw)[0].strip()
        if not line:
            continue
        try:
            asked = requirement(line)
        except InvalidRequirement:
            asked = None
        if asked is None or asked.url or not line.isprintable():
            raise DescriptionError(
                f"{path}:{number}: podkiln locks packages of an index, and this line is none: "
                f"{shown(line[:80])}",
                hint="Nothing was written.",
            )
        found.append(line)
    return tuple(found)


def _python(path: Path) -> str | None:
    """Return the versions of Python that a project is for. Raises SourceError."""
    if not path.exists() and not path.is_symlink():
        return None
    try:
        project = tomllib.loads(_text(path)).get("project", {})
    except (tomllib.TOMLDecodeError, RecursionError) as broken:
        why = "it is nested too deep" if isinstance(broken, RecursionError) else " ".join(str(broken).split())
        raise SourceError(f"{path} cannot be read: {why}.") from None
    if not isinstance(project, dict):
        raise SourceError(f"{path}: project is no table.")
    asked = project.get("requires-python", "")
    try:
        if not isinstance(asked, str):
            raise InvalidSpecifier
        found = SpecifierSet(asked)
        found.contains("3.13")  # of too many digits it is a ValueError, and only here
    except ValueError:
        raise SourceError(
            f"{path}: requires-python is {shown(str(asked))}; expected versions such as '>=3.10'."
        ) from None
    return str(found) or None


def _text(path: Path) -> str:
    """Return a file's text. Raises SourceError."""
    try:
        return content_of(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{path} cannot be read: it is no UTF-8 text.") from None
