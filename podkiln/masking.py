"""What people and files must not be shown: logins and tokens, in URLs and in names of registries.

`masked` works on any text, so it is applied where text leaves: to errors, logs, and the command of a report.
Values that are known to be secret (`learn`) are also cut out of what other programs print (`Filter`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HIDDEN: Final = "***"
_LONGEST: Final = 1 << 16  # characters of one text that are looked at
_SHORTEST: Final = 4  # characters of a secret that is looked for everywhere: "a" would be cut out of words
_WORD: Final = re.compile(r"[^\s\"'<>()`,]+")
_SCHEME: Final = re.compile(r"(?:^|(?<=[^\w+.-]))(?:[A-Za-z][\w+.-]{0,30}:/+|//)")
_AUTHORITY: Final = re.compile(r"[^/?#]*")
_HOST_PORT: Final = re.compile(r"(?:\[[^\]]*\]|[^:@]*)(?::\d*)?")
_PINNED: Final = re.compile(r"@(?:sha256|sha512):[^@]*$")  # of an image, by digest
_DELIMITER: Final = re.compile(r"([?&;#])")
_SECRET_NAME: Final = re.compile(
    r"token|secret|passw|pwd|auth|credential|sig(?:nature)?$|key$|_state", re.IGNORECASE
)
_VARIABLES: Final = re.compile(r"(?:PROXY|_URL|_ENDPOINT|_INDEX)$", re.IGNORECASE)  # hold URLs
_TOKENS: Final = ("HF_TOKEN", "CIVITAI_TOKEN")

_known: set[str] = set()


def masked(text: str) -> str:
    """Return a text without logins: of URLs, of `user:password@host`, of queries, and those that were learnt.

    `name:tag@sha256:…` and `git@host:path` hold no login and stay as they are. Takes time linear in the text;
    beyond 64 KiB it is cut.
    """
    text = text[:_LONGEST]
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _WORD.sub(lambda word: _masked_word(word[0]), text)


def printable(text: str) -> str:
    """Return a text whose control characters, other than line ends and tabs, are blanks."""
    return "".join(char if char.isprintable() or char in "\n\t" else " " for char in text)


def learn(arguments: Iterable[str] = (), environment: Mapping[str, str] | None = None) -> None:
    """Remember the secrets in a command line and in variables that hold URLs or tokens."""
    given = environment or {}
    named = [value for name, value in given.items() if _VARIABLES.search(name)]
    urls = [*arguments, *(url for value in named for url in value.split())]
    secrets = {secret for url in urls for secret in _logins(url)}
    secrets |= {given[name].strip() for name in _TOKENS if name in given}
    forms = {form for secret in secrets for form in (secret, unquote(secret), quote(secret, safe=""))}
    _known.update(form for form in forms if len(form) >= _SHORTEST)


class Filter:
    """Cuts the secrets that were learnt out of what another program prints, as it comes."""

    def __init__(self) -> None:
        self._secrets = sorted((secret.encode() for secret in _known), key=len, reverse=True)
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


def _masked_word(word: str) -> str:
    if "@" in word:
        front, login, end = _split(word)
        word = f"{front}{HIDDEN}@{end}" if login else word
    if "=" in word:
        word = "".join(_masked_field(part) for part in _DELIMITER.split(word))
    return word


def _masked_field(part: str) -> str:
    """Hide the value of `name=value` where the name is that of a secret."""
    name, equals, value = part.partition("=")
    return f"{name}={HIDDEN}" if equals and value and _SECRET_NAME.search(name) else part


def _split(word: str) -> tuple[str, str, str]:
    """Return what stands before a login in a word, the login, and what follows its @.

    A password may hold `/`, `?` or `#` that should have been encoded: then what seems to be the host's port
    is no number, and the login goes to the last @.
    """
    scheme = _SCHEME.search(word)
    pinned = _PINNED.search(word)
    end = pinned.start() if pinned else len(word)
    if scheme:
        start = scheme.end()
        authority = _AUTHORITY.match(word, start, end)
        stop = authority.end() if authority else start
        at = word.rfind("@", start, stop)
        if at < 0 and not _HOST_PORT.fullmatch(word, start, stop):
            at = word.rfind("@", start, end)
        if ":" not in word[start : max(at, start)] and word[:start].lower().endswith("ssh://"):
            at = -1  # a user's name, and keys are what ssh asks for
    else:  # user:password@host, maybe behind `--option=`
        option, equals, _ = word.partition("=")
        start = len(option) + 1 if equals and ":" not in option else 0
        at = word.rfind("@", start, end)
        if ":" not in word[start : max(at, start)]:
            at = -1
    return (word[:start], word[start:at], word[at + 1 :]) if at > start else (word, "", "")


def _logins(text: str) -> list[str]:
    """Return the passwords in an argument, and what stands alone before an @ of a URL (a token)."""
    user, colon, password = _split(text[:_LONGEST])[1].partition(":")
    return [secret for secret in (password if colon else user,) if secret]
