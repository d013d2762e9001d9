"""What a custom node wants installed, against what the image has.

A node names its packages in requirements.txt (pip's requirements file format), for want of that in
pyproject.toml ([project] dependencies). Whatever is installed in the image ComfyUI itself needs, so a node
that wants another version of it cannot have it.
"""

from __future__ import annotations

import codecs
import importlib
import os
import re
import stat
import sys

from pod.util.dataclass import dataclass, field
from pod.util.printable import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

# Format: https://pip.pypa.io/en/stable/reference/requirements-file-format/
# Patterns are compiled when they are first used: a boot without nodes does without them.
_OTHERS = r"(?:-r\s*|--requirement(?:\s+|\s*=\s*))(\S.*)"
_COMMENT = r"(?:^|\s)#.*$"
_HASHES = r"\s--(?:hash|config-settings?|global-option)[= ].*$"  # what pip takes after a requirement
_EGG = r"[#&]egg=([A-Za-z0-9][A-Za-z0-9._-]*)"
_WHEEL = r"https?://\S+/([A-Za-z0-9][A-Za-z0-9._]*)-[^/-]+(?:-[^/-]+){3,4}\.whl(?:[#?]\S*)?"
# Options of a whole file that change nothing about which packages are wanted, and those that say where they
# come from: these matter only where something has to be fetched.
_HARMLESS = (
    *("--pre", "--prefer-binary", "--require-hashes", "--trusted-host", "--use-feature"),
    *("--no-binary", "--only-binary"),
)
_SOURCES = (
    *("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index"),
    *("-c", "--constraint"),
)
_LARGEST = 1 << 18  # bytes of a file; nobody's requirements are longer
_MOST_LINES = 2000
_LONGEST_LINE = 2000  # characters
# Of pyproject.toml, whose parser takes the square of a key's parts, and more under a deep header: with these
# bounds it takes some tenths of a second at most, of the 2 s that all nodes together have.
_LONGEST_PROJECT = 1 << 16  # characters; those of nodes have some 2000
_MOST_DOTS = 500  # of one line
_DEEP_KEY = r"^[ \t]*+\[*+(?:[ \t]*+(?:[A-Za-z0-9_-]++|\"(?:[^\"\\\n]|\\.)*+\"|'[^'\n]*+')[ \t]*+\.){12}"
_DEEPEST = 9  # files that include each other
_SHOWN = 120  # characters of a line that a sentence quotes
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),  # what PowerShell writes
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class NodeReport:
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


@dataclass
class _Wants:
    """What is read of a node: requirements, what could not be understood, and options that name sources."""

    lines: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def compare(folder: Path, image: Mapping[str, str], overlay: Mapping[str, str], parse: Any) -> NodeReport:
    """Compare a node's wants with what is installed. Raises OSError where the node cannot be read.

    Args:
        folder: The node.
        image: What the image has, from `installed`.
        overlay: What was installed for nodes beside it.
        parse: `packaging`'s Requirement, from `parser`.
    """
    wants = _read(folder)
    conflicts: list[str] = []
    missing: list[str] = []
    beyond: list[str] = []
    unclear = [*wants.unclear]
    for line in wants.lines:
        try:
            want = parse(line)
            if want.marker is not None and not want.marker.evaluate({"extra": ""}):
                continue
            name = normalized(want.name)
            if name in image:
                if not _fits(want, image[name]):
                    conflicts.append(f"{want.name}{want.specifier}, and the image has {image[name]}")
            elif (want.url or "").startswith("file:"):
                unclear.append(shown(line, _SHOWN))  # a path of the machine that it was written on
            else:
                beyond.append(str(want))
                if name not in overlay or not _fits(want, overlay[name]):
                    missing.append(str(want))
        except Exception:  # noqa: BLE001 - `packaging` raises some ten kinds for odd lines, markers and versions
            unclear.append(shown(line, _SHOWN))
    if missing:
        unclear += wants.sources
    return NodeReport(
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


def modules(names: Sequence[str], place: str) -> list[str]:
    """Return those of the modules that can be imported from a folder of packages."""
    from importlib.machinery import PathFinder  # noqa: PLC0415 - asked about few flags only

    found = []
    for name in names:
        spec = PathFinder.find_spec(name, [place])
        if spec is not None and (spec.origin or spec.submodule_search_locations):
            found.append(name)
    return found


_ALIKE = ("requirements.txt", "Requirements.txt", "REQUIREMENTS.txt")


def _read(folder: Path) -> _Wants:
    wants = _Wants()
    words = text(f"{folder}/requirements.txt", _LARGEST)
    if words is None:
        other = next((name for name in _ALIKE if os.path.lexists(f"{folder}/{name}")), None)
        if other:  # pip would not be given it, so its author means something else
            named = other == _ALIKE[0]
            wants.unclear.append(
                f"{other} is {'not a plain file' if named else 'not called requirements.txt'}"
            )
        _project(f"{folder}/pyproject.toml", wants)
    else:
        _requirements(words, folder, ["requirements.txt"], wants)
    return wants


def _requirements(words: str, folder: Path, seen: list[str], wants: _Wants) -> None:
    """Sort the lines of a file and of those that it includes."""
    for number, whole in enumerate(re.sub(r"\\\r?\n", " ", words).splitlines()):
        if number == _MOST_LINES or len(whole) > _LONGEST_LINE:
            wants.unclear.append(f"{seen[-1]} is too long")
            return
        line = re.sub(_COMMENT, "", whole).strip()
        if not line:
            continue
        if other := re.match(_OTHERS, line):
            _include(other[1].strip("\"' "), folder, seen, wants)
        elif line.startswith("-"):
            _option(line, wants)
        else:
            wants.lines.append(_named(re.sub(_HASHES, "", line)))


def _include(name: str, folder: Path, seen: list[str], wants: _Wants) -> None:
    """Read a further file of the node's; one that lies elsewhere is not ours to read out."""
    if name in seen:
        wants.unclear += [shown(f"-r {name}, which is itself", _SHOWN)] if name == seen[-1] else []
        return
    inside = not name.startswith(("/", "~")) and ".." not in name.split("/") and "\0" not in name
    words = text(f"{folder}/{name}", _LARGEST) if inside and len(seen) < _DEEPEST else None
    if words is None:
        wants.unclear.append(shown(f"-r {name}", _SHOWN))
        return
    seen.append(name)
    _requirements(words, folder, seen, wants)


def _option(line: str, wants: _Wants) -> None:
    word = re.split(r"[\s=]", line, maxsplit=1)[0]
    if word in _SOURCES:
        wants.sources.append(shown(line, _SHOWN))
    elif word not in _HARMLESS:
        wants.unclear.append(shown(line, _SHOWN))


def _named(line: str) -> str:
    """Put the name before an address that tells it: #egg=, or the name of a wheel."""
    if line.startswith(("git+", "hg+", "svn+", "bzr+", "http://", "https://")):
        name = re.search(_EGG, line) or re.fullmatch(_WHEEL, line)
        if name:
            return f"{name[1]} @ {line}"
    return line


def _project(path: str, wants: _Wants) -> None:
    words = text(path, _LARGEST)
    if words is None or "dependencies" not in words:
        return
    if _is_long(words):
        wants.unclear.append("pyproject.toml is too long")
        return
    import tomllib  # noqa: PLC0415 - few nodes need it

    try:
        project = tomllib.loads(words).get("project", {})
        listed = project.get("dependencies", []) if isinstance(project, dict) else None
    except (ValueError, RecursionError):  # TOMLDecodeError is a ValueError
        listed = None
    if not isinstance(listed, list) or not all(isinstance(want, str) for want in listed):
        wants.unclear.append("pyproject.toml is damaged")
        return
    short = [want for want in listed[:_MOST_LINES] if len(want) <= _LONGEST_LINE]
    wants.lines += short
    wants.unclear += ["pyproject.toml is too long"] if len(short) < len(listed) else []


def _is_long(words: str) -> bool:
    """Tell whether a file of TOML could take seconds to parse."""
    return (
        len(words) > _LONGEST_PROJECT
        or any(line.count(".") > _MOST_DOTS for line in words.split("\n"))
        or re.search(_DEEP_KEY, words, re.MULTILINE) is not None
    )


def text(path: str, limit: int) -> str | None:
    """Return a file's text, of at most so many bytes; None when there is no such file. Raises OSError.

    A pipe or a device of that name is no file: opening one could take for ever.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - it is open already
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = file.read(limit)
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "utf-8")
    return data.decode(encoding, errors="replace").replace("\r\n", "\n")
