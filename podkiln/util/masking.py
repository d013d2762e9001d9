"""What people and files must not be shown: logins and tokens, in URLs and in names of registries.

How logins are recognized is the pod's own code (scripts/pod/util/masking.py). `masked` works on any
text, so it is applied where text leaves: to errors, logs, and the command of a report. Values that are
known to be secret (`learn`) are also cut out of what other programs print (`Filter`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from pod.util.masking import MASK
from pod.util.masking import masked as masked_line
from pod.util.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HIDDEN: Final = MASK
_LONGEST: Final = 1 << 16  # characters of one argument that are looked at
_LONGEST_LINE: Final = 4000  # characters that are shown
_SHORTEST: Final = 4  # characters of a secret that is looked for everywhere: "a" would be cut out of words
_SCHEME: Final = re.compile(r":/+|//")
_PINNED: Final = re.compile(r"@(?:sha256|sha512):[^@]*$")  # of an image, by digest
_VARIABLES: Final = re.compile(r"(?:PROXY|_URL|_ENDPOINT|_INDEX)$", re.IGNORECASE)  # hold URLs
_TOKENS: Final = ("HF_TOKEN", "CIVITAI_TOKEN")

_known: set[str] = set()


def masked(text: str) -> str:
    """Return a text of one line or more without the secrets that were learnt, and as the pod masks lines."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return "\n".join(masked_line(line) for line in text.split("\n"))


def for_people(text: str) -> str:
    """Return a text as it may be printed: masked, and without control characters other than line ends."""
    return "\n".join(printable(line, _LONGEST_LINE) for line in masked(text).split("\n"))


def learn(arguments: Iterable[str] = (), environment: Mapping[str, str] | None = None) -> None:
    """Remember the secrets in a command line and in variables that hold URLs or tokens."""
    given = environment or {}
    named = [value for name, value in given.items() if _VARIABLES.search(name)]
    urls = [*arguments, *(url for value in named for url in value.split())]
    secrets = {secret for url in urls for secret in _logins(url)}
    secrets |= {given[name].strip() for name in _TOKENS if name in given}
    forms = {form for secret in secrets for form in (secret, unquote(secret), quote(secret, safe=""))}
    _known.update(form for form in forms if len(form) >= _SHORTEST)


def forget() -> None:
    """Forget all that was learnt: another command line begins."""
    _known.clear()


def has_secret(url: str) -> bool:
    """Tell whether a URL holds a login, or a token in its query; the user of ssh://git@… does not count."""
    query = url.partition("?")[2]
    return bool(_logins(url)) or masked_line(query) != query


class Filter:
    """Cuts the secrets that were learnt out of what another program prints, as it comes."""

    def __init__(self) -> None:
        secrets = (secret.encode(errors="surrogateescape") for secret in _known)
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Take some bytes; return those that can be shown now. The start of a secret is kept back."""
        data = self._held + data
        for secret in self._secrets:
            data = data.replace(secret, HIDDEN.encode())
        keep = max((_overlap(data, secret) for secret in self._secrets), default=0)
        cut = len(data) - keep
        self._held = data[cut:]
        return data[:cut]

    def rest(self) -> bytes:
        """Return what was kept back, at the end."""
        held, self._held = self._held, b""
        return held


def _overlap(data: bytes, secret: bytes) -> int:
    """Return how many bytes at the end of some data a secret may begin with."""
    most = min(len(secret) - 1, len(data))
    return next((count for count in range(most, 0, -1) if secret.startswith(data[-count:])), 0)


def _logins(text: str) -> list[str]:
    """Return the password in an argument, or what stands alone before the @ of a URL (a token).

    It may hold any character: what stands before the last @ and after a scheme, or a name and a colon.
    """
    text = _PINNED.sub("", text[:_LONGEST])
    before, at, _ = text.rpartition("@")
    scheme = _SCHEME.search(before)
    user, colon, password = before[scheme.end() if scheme else 0 :].partition(":")
    secret = password if colon else user if scheme else ""
    return (
        [secret] if at and secret and not (scheme and "ssh" in before[: scheme.start()] and not colon) else []
    )
