"""The kinds of values that stand in descriptions: text of one form, or text that a function checks.

Each says in words what it expects; a function raises ValueError.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath
from typing import Annotated, Final, TypeVar

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from pydantic import AfterValidator, Field, StringConstraints

from podkiln.config.messages import PatternType
from podkiln.errors import UsageError
from podkiln.oci.reference import Reference, registry_name, repository_problem
from podkiln.util import git_tree
from podkiln.util.quoting import shown

T = TypeVar("T")
MAX_NAME_BYTES = 255  # bytes, on every file system that images and volumes have
MAX_PATH_BYTES = 1024  # of a relative path: Linux takes 4096 with what stands before it
MAX_REQUIREMENT = 500  # characters of a Python requirement; a package's name alone has less than 100
RESERVED_LABELS: Final = (
    "io.podkiln.",
    "org.opencontainers.image.title.",
    "org.opencontainers.image.description.",
    "org.opencontainers.image.version.",
    "org.opencontainers.image.base.",
    # Docker keeps these for itself (https://docs.docker.com/engine/manage-resources/labels/).
    "com.docker.",
    "io.docker.",
    "org.dockerproject.",
)
"""How labels begin that no description gives: they say what the image is, and `verify` reads them."""

_WHITEOUT = ".wh."  # OCI image-spec, layer.md: in a layer, such a name deletes another file
# Folders of the system, and those that templates/dockerfile/ fills: a volume there would hide what runs.
_TAKEN = (
    *("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr"),
    *("opt/ComfyUI", "opt/jupyter", "opt/models", "opt/podkiln", "opt/runpod", "opt/venv"),
    *("opt/node-code", "opt/node-paths", "opt/node-venvs"),
)
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"

Text = Annotated[str, PatternType(r"\S", "text that is not empty")]
IDENTIFIER: Final = r"[a-z0-9][a-z0-9._-]{0,63}"
Identifier = Annotated[
    str, PatternType(rf"^{IDENTIFIER}$", "a short name of lower-case letters, digits and . _ -")
]
Revision = Annotated[str, PatternType(r"^[0-9a-f]{40}$", "a commit of 40 lower-case hex digits")]


HOST: Final = rf"[A-Za-z0-9][A-Za-z0-9.-]*(:{_PORT})?"
"""The form of a host in a URL, maybe with a port."""


def url_problem(value: str) -> str | None:
    """Return what keeps a text from being an https URL, without repeating it: it may hold a login."""
    scheme, separator, rest = value.partition("://")
    host, slash, path = rest.partition("/")
    if re.match(r"[\w.-]+@[\w.-]+:", value) or scheme.lower() in {"git", "ssh"}:
        return "expected an https URL such as https://github.com/OWNER/NAME; this is an address for ssh"
    if not separator or scheme != "https":
        return "expected a URL that begins with https://"
    problems = {
        "expected a URL without a login in it": "@" in host,
        "expected a URL without # and what stands behind it": "#" in value,
        "expected a URL without blanks: write %20": any(map(str.isspace, value)),
        "expected a URL of ASCII characters: write all others as %XX": not value.isascii(),
        "expected a path or file behind the host": not slash or not path,
    }
    return next((problem for problem, found in problems.items() if found), None)


HttpsUrl = Annotated[
    str,
    PatternType(
        rf'^https://{HOST}/[!"$-~]+$',
        "an https URL without login, # and blanks",
        secret=True,
        explain=url_problem,
    ),
]
Digest = Annotated[str, PatternType(r"^sha256:[0-9a-f]{64}$", "sha256: and 64 lower-case hex digits")]
# One that ended in a - would be removed by apt-get, not installed.
AptPackage = Annotated[str, PatternType(r"^[a-z0-9][a-z0-9+.-]*[a-z0-9+.]$", "the name of a Debian package")]
Version = Annotated[str, PatternType(r"^[0-9]{1,9}(\.[0-9]{1,9}){0,5}$", "a version of numbers and dots")]
Release = Annotated[
    str,
    PatternType(
        r"^[0-9]{1,9}(\.[0-9]{1,9}){1,5}(-[0-9a-f]{12})?$",
        "a release of ComfyUI such as 0.33.0, or one and the first 12 digits of a commit after it",
    ),
]
PythonVersion = Annotated[str, PatternType(r"^3\.[0-9]{1,3}$", "a version of Python such as 3.13")]
Platform = Annotated[
    str, PatternType(r"^(x86_64|aarch64)-manylinux_2_[0-9]+$", "a platform such as x86_64-manylinux_2_28")
]
PackageGlob = Annotated[str, PatternType(r"^[a-z0-9*][a-z0-9*-]*$", "a package's name, maybe with *")]
PackageName = Annotated[
    str, PatternType(r"^[a-z0-9]+(-[a-z0-9]+)*$", "a package's name of lower-case letters, digits and -")
]
LayerName = Annotated[str, PatternType(r"^[a-z][a-z0-9-]*$", "a name of lower-case letters, digits and -")]
LabelName = Annotated[
    str,
    PatternType(r"^[a-z0-9]+([._-][a-z0-9]+)+$", "a label in reverse-domain form such as com.example.team"),
]
VariableName = Annotated[str, PatternType(r"^[A-Za-z_][A-Za-z0-9_]*$", "the name of an environment variable")]
Port = Annotated[int, Field(ge=1, le=65535)]


def safe_path(value: str) -> str:
    """Return a relative path that stays below where it is put. Raises ValueError for all others."""
    path = PurePosixPath(value)
    if len(value.encode(errors="surrogatepass")) > MAX_PATH_BYTES:
        raise ValueError(f"{shown(value)} is longer than {MAX_PATH_BYTES} bytes")
    if not value or value != str(path) or value == ".":
        raise ValueError(f"{shown(value)} is not a plain relative path")
    if path.is_absolute():
        raise ValueError(f"{shown(value)} is absolute; expected a relative path")
    if ".." in path.parts:
        raise ValueError(f"{shown(value)} climbs out of its folder with '..'")
    if "\\" in value or not value.isprintable():
        raise ValueError(f"{shown(value)} holds a backslash or a character that is not shown")
    if any(len(part.encode()) > MAX_NAME_BYTES or part != part.strip() for part in path.parts):
        raise ValueError(f"{shown(value)} has a part that begins or ends with a space, or is too long")
    if any(part.startswith(_WHITEOUT) for part in path.parts):
        raise ValueError(
            f"{shown(value)} has a part that begins with {_WHITEOUT}: in an image layer that deletes a file"
        )
    return value


def source_folder(value: str) -> str:
    """Return a folder of a source tree. Raises ValueError for what no image has of one, and is no path."""
    for part in PurePosixPath(safe_path(value)).parts:
        if part.lower() in git_tree.IGNORED:  # in any case: a volume may not tell .GIT from .git
            raise ValueError(f"{shown(value)} lies in {part}, which is left out of each source tree")
    return value


def one_name(path: str) -> str:
    """Return a path without what some volumes do not tell apart: case, and the form of letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    """Return a list without duplicates. Raises ValueError."""
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ValueError(f"{value!r} is duplicated")
    return values


SafePath = Annotated[str, AfterValidator(safe_path)]
SourceFolder = Annotated[str, AfterValidator(source_folder)]


def _phrase(text: str) -> str:
    """Refuse what does not fit into a sentence: reasons are joined with other words."""
    if not text.strip() or "\n" in text or text.endswith("."):
        raise ValueError("expected a phrase on one line without a full stop at its end")
    return text


Phrase = Annotated[str, AfterValidator(_phrase)]
FlagName = Annotated[str, StringConstraints(pattern=r"^--[a-z0-9][a-z0-9_-]*$")]


def _releases(value: str) -> str:
    """Check a range of releases, as packages write theirs (https://peps.python.org/pep-0440/)."""
    try:
        found = list(SpecifierSet(value))
        for each in found:
            each.contains("1")  # a number of thousands of digits is a ValueError, and only here
    except ValueError:
        found = []
    if not found:
        raise ValueError(f"{shown(value)} is no range of releases; expected one such as >=0.22,<0.38")
    return value


def holds(releases: str | None, release: str) -> bool:
    """Return whether a range of releases has one in it; a commit after a release counts as that release."""
    number = release.partition("-")[0]
    return releases is None or SpecifierSet(releases).contains(number, prereleases=True)


Releases = Annotated[str, AfterValidator(_releases)]


def _workspace(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is not an absolute path")
    inside = value.removeprefix("/")
    if any(inside == taken or inside.startswith(f"{taken}/") for taken in ("", *_TAKEN)):
        raise ValueError(f"{value!r} is a folder of the image itself; expected one such as /workspace")
    safe_path(inside)
    if not re.fullmatch(r"[A-Za-z0-9/._-]+", value):
        raise ValueError(f"{value!r} holds more than letters, digits and / . _ -")
    return value


def _repository(value: str) -> str:
    """Check a repository's name by the grammar of references: host and tag are added to it."""
    problem = repository_problem(value)
    if problem:
        raise ValueError(f"{shown(value)} is not the name of a repository: {problem}")
    return value


def _image(value: str) -> str:
    """Check an image's name by the grammar of references; the digest stands in a key of its own."""
    try:
        named = Reference.parse(value)
    except UsageError as wrong:
        raise ValueError(str(wrong)) from None
    if named.digest:
        raise ValueError(f"{shown(value)} holds a digest, which belongs in the key digest")
    return value


def _registry(value: str) -> str:
    try:
        return registry_name(value)
    except UsageError as wrong:
        raise ValueError(str(wrong)) from None


def _own(name: str) -> str:
    if re.sub("[_-]", ".", f"{name}.".lower()).startswith(RESERVED_LABELS):
        raise ValueError(f"the label {name} is reserved: podkiln or Docker says in it what the image is")
    return name


def requirement(value: str) -> Requirement:
    """Read one Python requirement (PEP 508). Raises InvalidRequirement, whatever stands there."""
    try:
        found = Requirement(value)
        for version in found.specifier:
            version.contains("1")  # a number of thousands of digits is a ValueError, and only here
    except (RecursionError, ValueError) as wrong:  # packaging reads parentheses in each other by recursion
        raise InvalidRequirement(str(wrong)) from None
    return found


def _requirement(value: str) -> str:
    """Check one Python requirement (PEP 508): a name, maybe with extras and versions."""
    if len(value) > MAX_REQUIREMENT:
        raise ValueError(f"{shown(value)} is longer than the {MAX_REQUIREMENT} characters of a requirement")
    try:
        wanted = requirement(value)
    except InvalidRequirement:
        what = f"{shown(value)} is not a Python requirement such as matplotlib>=3.9"
        raise ValueError(f"{what}{_instead(value)}") from None
    if wanted.url:
        raise ValueError(f"{shown(wanted.name)} has an address, {_INDEX_ALONE}")
    if wanted.marker:
        raise ValueError(f"{shown(value)} has a marker, and the image has one Python on one platform")
    return value


_INDEX_ALONE: Final = (
    "and only wheels of the package index are locked; write its name and version as the index has it, "
    "or, for a node, name its repository under `paths`"
)


def _instead(line: str) -> str:
    """Return what to do about a line that only pip's requirements files have; nothing for others.

    Source: https://pip.pypa.io/en/stable/reference/requirements-file-format/.
    """
    line = line.strip()
    if re.match(r"(-r|--requirement|-c|--constraint)(?![a-z])", line):
        return ": copy the lines of that file in its place"
    if re.search(r"(^|\s)#", line):
        return ": leave the comment out, from # on"
    if re.match(r"(-e|--editable)(?![a-z])|\S+://|\.{0,2}/|\S+\.(whl|zip|tar\.gz)$", line):
        return f": it has an address, {_INDEX_ALONE}"
    return ": it is an option of pip's, and packages alone are listed here" if line.startswith("-") else ""


def requirement_name(value: str) -> str | None:
    """Return the canonical name of the package that a requirement asks for; None where it is none."""
    try:
        return canonicalize_name(requirement(value).name)
    except InvalidRequirement:
        return None


PythonRequirement = Annotated[str, AfterValidator(_requirement)]
Workspace = Annotated[str, AfterValidator(_workspace)]
ImageName = Annotated[str, AfterValidator(_image)]
RepositoryName = Annotated[str, AfterValidator(_repository)]
RegistryName = Annotated[str, AfterValidator(_registry)]
OwnLabel = Annotated[LabelName, AfterValidator(_own)]
