"""Names of images: HOST[:PORT]/NAMESPACE/NAME[:TAG][@DIGEST], read as Docker reads them.

One registry has one name here: hosts are compared by what they are, not by how they are written.

Source: distribution/reference (reference.go holds the grammar, normalize.go the docker.io defaults).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from podkiln.errors import IntegrityError, UsageError
from podkiln.oci.spec import Digest, parse_digest
from podkiln.util.masking import masked
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
_HUB_NAMES = frozenset({"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
_HTTPS_PORT = 443
_MAX_NAME = 255  # characters of host and repository together
_MAX_TEXT = 1024  # characters of a whole name, with tag and digest
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_BARE_HEX = re.compile(r"[0-9a-f]{64}")
_MAX_PORT = 65535
_PINNED = re.compile(r"@(?:(?:sha256|sha512)(?::[^@]*)?)?$", re.IGNORECASE)  # the end of a name: its digest
_LOCAL = re.compile(r"localhost|127\.[0-9.]+|\[::1\]")  # where http is usual, so 443 is not the usual port


def registry_host(host: str) -> str:
    """Return the one name of a registry: lower case, without https's own port, Docker Hub as docker.io.

    `GHCR.IO`, `ghcr.io:443` and `ghcr.io` are one registry; `index.docker.io`, `registry-1.docker.io` and
    `docker.io` are another.
    """
    lower = host.lower()
    if not set(lower) & set(".:[") and lower != "localhost":
        return host  # upper case alone tells it from a namespace
    name, _, port = lower.rpartition(":")
    if port == str(_HTTPS_PORT) and not _LOCAL.fullmatch(name):
        lower = name
    return DOCKER_HUB if lower in _HUB_NAMES else lower


def problem_of(text: str) -> str | None:
    """Return what is wrong with an image name, in some words; None for a good one."""
    return next(_problems(text), None)


@dataclass(frozen=True)
class Reference:
    """The name of an image: which registry, which repository, and by tag, by digest, or by both."""

    host: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an image name; `debian` is docker.io/library/debian. Raises UsageError in one sentence.

        The host is the registry's one name (`registry_host`): Docker Hub's others become docker.io.
        """
        problem = problem_of(text)
        if problem:
            raise UsageError(
                f"{masked(text)[:300]!r} is not an image name: {problem}.",
                hint="Write HOST[:PORT]/NAMESPACE/NAME[:TAG], for example ghcr.io/you/podkiln:lazy.",
            )
        host, repository, tag, digest = _split(text)
        return cls(host, repository, tag, Digest(digest) if digest is not None else None)

    def with_tag(self, tag: str | None) -> Self:
        """Return the same repository under another tag, without a digest."""
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest | None) -> Self:
        """Return the same name, pinned to a digest."""
        return replace(self, digest=digest)

    @property
    def name(self) -> str:
        """Host and repository, without tag and digest."""
        return f"{self.host}/{self.repository}"

    @property
    def familiar(self) -> str:
        """The name as Docker shows it: without docker.io and library."""
        hub = DOCKER_HUB + "/"
        return str(self).removeprefix(hub + "library/").removeprefix(hub)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return self.name + tag + digest


def _split(text: str) -> tuple[str, str, str | None, str | None]:
    """Take a name apart into host, repository, tag and digest; nothing is checked here."""
    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    host, repository = _split_host(head + slash + last)
    return host, repository, tag if colon else None, digest if at else None


def _split_host(name: str) -> tuple[str, str]:
    """Tell the host from the repository.

    The first part is a host when it could not be a namespace: a dot, a colon, upper case, or localhost.
    """
    first, slash, rest = name.partition("/")
    if not slash or not (first == "localhost" or set(first) & set(".:[") or first != first.lower()):
        first, rest = DOCKER_HUB, name
    else:
        first = registry_host(first)
    if first == DOCKER_HUB and "/" not in rest:
        rest = "library/" + rest
    return first, rest


def registry_name(text: str) -> str:
    """Read where images go, HOST[/NAMESPACE]; `you` is docker.io/you. Raises UsageError in one sentence."""
    hint = "Write HOST/NAMESPACE, for example ghcr.io/you or localhost:5000/you."
    if "@" in text:  # not repeated: it may be a password
        raise UsageError("the registry's name holds an @; a login belongs in `docker login`.", hint=hint)
    parts = f"{text}/x"
    problem = "it is empty" if not text.strip() else next(_problems(parts), None)
    if problem is None and _split_host(parts) == (DOCKER_HUB, "library/x"):
        problem = "Docker Hub needs a namespace"
    if problem:
        raise UsageError(f"{shown(text)} is not the name of a registry: {problem}.", hint=hint)
    return text


def repository_problem(repository: str) -> str | None:
    """Return what is wrong with a repository's name, without host and tag; None where nothing is."""
    problem = next(_repository_problems(repository), None)
    if problem is None and len(repository) > _MAX_NAME:
        return f"it is longer than {_MAX_NAME} characters"
    return problem


def _problems(text: str) -> Iterator[str]:
    """Yield what is wrong with a name, the first thing first."""
    yield from _text_problems(text)
    host, repository, tag, digest = _split(text)
    yield from _host_problems(host)
    yield from _repository_problems(repository)
    if _BARE_HEX.fullmatch(text):
        yield "64 hex digits alone would read as an image id"
    if len(host) + 1 + len(repository) > _MAX_NAME:
        yield f"host and repository are longer than {_MAX_NAME} characters"
    if tag is not None and not _TAG.fullmatch(tag):
        yield f"the tag {tag!r} is not 1 to 128 of letters, digits, '_', '.', '-', the last two not in front"
    if digest is not None:
        try:
            parse_digest(digest)
        except IntegrityError:
            yield f"after '@' comes {digest[:80]!r}, not sha256: and 64 lower-case hex digits"


def _text_problems(text: str) -> Iterator[str]:
    if not text:
        yield "it is empty"
    if "@" in _PINNED.sub("", text):
        yield "it holds a login (the part before @), and names have none: use `docker login HOST`"
    if len(text) > _MAX_TEXT:
        yield f"host and repository are longer than {_MAX_NAME} characters"
    if "://" in text:
        yield "it begins with a scheme such as https://, and names have none"
    if any(char.isspace() for char in text):
        yield "it holds blanks"


def _host_problems(host: str) -> Iterator[str]:
    match = _HOST.fullmatch(host)
    if not match:
        yield f"{host!r} is not a host"
    elif match["port"] and not 0 < int(match["port"]) <= _MAX_PORT:
        yield f"{match['port']} is not a port"


def _repository_problems(repository: str) -> Iterator[str]:
    for part in repository.split("/"):
        if not part:
            yield "a part between its slashes is empty"
        elif part != part.lower():
            yield f"the repository part {shown(part)} has upper-case letters, and only tags may"
        elif not _COMPONENT.fullmatch(part):
            what = "letters and digits joined by '.', '_', '__' or '-'"
            yield f"the repository part {shown(part)} is not {what}"
