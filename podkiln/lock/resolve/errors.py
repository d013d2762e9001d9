"""The facts that a hub gives about one file, and the four kinds of failure to get them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FileMetadata:
    """A file's size (bytes), sha256 and revision at its source; None where the source does not give it."""

    revision: str | None
    size: int | None
    sha256: str | None
    remarks: tuple[str, ...] = ()  # what a person should know of it


class UnreachableError(Exception):
    """The host cannot be asked now: the file stays unresolved."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"{host} could not be asked ({why})")
        self.host = host
        self.why = why


class UnclearError(Exception):
    """The host answers what cannot be an answer: this file stays unresolved, others are asked for."""


class AccessDeniedError(Exception):
    """The host answers, but wants a login or an accepted licence first: the file stays unresolved."""


class RefusedError(Exception):
    """The description cannot be right: no such file, or one that must not be taken."""
