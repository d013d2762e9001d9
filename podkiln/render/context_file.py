"""A file of a build context: its bytes, and how it lies there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """One file of the context. `copied`: carried along from the repository as it is."""

    content: bytes
    executable: bool = False
    copied: bool = False

    @property
    def mode(self) -> int:
        """Permissions: fixed, because COPY keeps them and a umask must not reach an image."""
        return 0o755 if self.executable else 0o644
