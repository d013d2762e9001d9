"""What a custom node wants installed, against what the image has.

A node names its packages in requirements.txt (pip's requirements file format), for want of that in
pyproject.toml ([project] dependencies). Whatever is installed in the image ComfyUI itself needs, so a node
that wants another version of it cannot have it.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

_OTHERS = re.compile(r"(?:-r|--requirement)[ =]?\s*(\S+)")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_OPTION = re.compile(r"\s--?[a-z][a-z-]*[= ].*$")  # --hash and its like, after a requirement
_ADDRESS = re.compile(r"(?:git\+|https?://|file:|\.{0,2}/)")
_LARGEST = 1 << 20  # bytes; nobody's requirements are longer


@dataclass(frozen=True)
class Verdict:
    """About one node: wants that the image contradicts, that it lacks, and that could not be understood.

    Each conflict is a phrase such as "numpy<2, and the image has 2.5.5"; `missing` holds requirements as
    pip takes them, and `beyond` all that go beyond the image, whether they were installed beside it or not.
    """

    node: str
    conflicts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


def installed(site: str) -> dict[str, str]:
    """Return version by normalized name, as the .dist-info folders in a site-packages are called."""
    found = {}
    try:
        names = os.listdir(site)  # noqa: PTH208 - pathlib costs 10 ms that a boot waits for
    except OSError:
        return {}
    for name in names:
        project, dash, version = name.removesuffix(".dist-info").partition("-")
        if dash and name.endswith(".dist-info"):
            found[normalized(project)] = version
    return found


def normalized(name: str) -> str:
    """Return a project's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def judge(folder: Path, image: Mapping[str, str], overlay: Mapping[str, str], parse: Any) -> Verdict:
    """Compare a node's wants with what is installed. Raises OSError where the node cannot be read.

    Args:
        folder: The node.
        image: What the image has, from `installed`.
        overlay: What was installed for nodes beside it.
        parse: `packaging`'s Requirement, from `parser`.
    """
    conflicts: list[str] = []
    missing: list[str] = []
    beyond: list[str] = []
    unclear: list[str] = []
    for line in _lines(folder):
        try:
            want = parse(line)
        except ValueError:
            unclear.append(line)
            continue
        if want.marker is not None and not want.marker.evaluate({"extra": ""}):
            continue
        name = normalized(want.name)
        if name in image:
            if not _fits(want, image[name]):
                conflicts.append(f"{want.name}{want.specifier}, and the image has {image[name]}")
            continue
        beyond.append(str(want))
        if name not in overlay or not _fits(want, overlay[name]):
            missing.append(str(want))
    return Verdict(
        folder.name, *(tuple(dict.fromkeys(each)) for each in (conflicts, missing, beyond, unclear))
    )


def _fits(want: Any, version: str) -> bool:
    """Whether a version will do; for what comes from an address any will, since nobody says which it has."""
    return want.url is not None or want.specifier.contains(version, prereleases=True)


def parser(site: str) -> Any:
    """Return `packaging`'s Requirement from ComfyUI's environment, or from its pip; None without either.

    The system's Python runs without any site-packages; both environments are of the same Python.
    """
    sys.path.append(site)
    try:
        for name in ("packaging", "pip._vendor.packaging"):
            try:
                return importlib.import_module(f"{name}.requirements").Requirement
            except ImportError:
                continue
        return None
    finally:
        sys.path.remove(site)


def _lines(folder: Path) -> Iterator[str]:
    text = _text(folder / "requirements.txt")
    if text is None:
        yield from _project(folder / "pyproject.toml")
        return
    yield from _requirements(text, folder, {"requirements.txt"})


def _requirements(text: str, folder: Path, seen: set[str]) -> Iterator[str]:
    """Yield the requirements of a file and of those that it includes; an address stands as it is."""
    for whole in text.replace("\\\n", " ").splitlines():
        line = _COMMENT.sub("", whole).strip()
        if other := _OTHERS.match(line):
            if other[1] not in seen and len(seen) < 9:  # noqa: PLR2004 - nobody goes deeper, but a circle would
                seen.add(other[1])
                yield from _requirements(_text(folder / other[1]) or "", folder, seen)
        elif line and (not line.startswith("-") or line.startswith(("-e ", "--editable "))):
            yield line if _ADDRESS.match(line) else _OPTION.sub("", line)


def _project(path: Path) -> Iterator[str]:
    text = _text(path)
    if text is None or "dependencies" not in text:
        return
    import tomllib  # noqa: PLC0415 - few nodes need it

    try:
        wants = tomllib.loads(text).get("project", {}).get("dependencies", [])
    except (tomllib.TOMLDecodeError, AttributeError):
        return
    yield from (want for want in wants if isinstance(want, str))


def _text(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            data = file.read(_LARGEST)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    return data.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
