"""The files of a model once they are here: the interface between fetching and loading.

On the volume, files lie below `models/diffusers`:

    ORG/NAME/COMMIT/...       files of a repository on Hugging Face, under its own paths
    civitai/VERSION/NAME      files of CivitAI
    https/HASH/NAME           files from other addresses
    locks/WORD-HASH.json      what a word led to: `record`

A loader sees none of these folders, but one of links to the files of the decision and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from server.detection.decision import Decision

COMPONENT = "component"
"""A kind of decision beside those of detection: a VAE or ControlNet, with its class in `component`."""


@dataclass(frozen=True)
class Piece:
    """One file: its path in its repository, where it lies, and the digest that it was found to have.

    `digest` is `sha256:...`, or `git:...` for small files outside LFS; "" of what is used where it is.
    """

    path: str
    at: Path
    digest: str = ""


@dataclass(frozen=True)
class Part:
    """Files that came from one place. `folder` holds them alone, under their paths: `link_of`.

    `source` is as in models.json, pinned; `revision` is its commit or version, "" where it has none.
    """

    source: Mapping[str, Any] = field(repr=False)
    revision: str
    pieces: tuple[Piece, ...]
    folder: Path

    @property
    def first(self) -> Path:
        """Where the first file lies: the weights, where there is one file alone."""
        return link_of(self.folder, self.pieces[0].path)


def link_of(folder: Path, path: str) -> Path:
    """Return what a file is called in a folder of links: diffusers reads as a pickle what ends in .sft."""
    plain = f"{path.removesuffix('.sft')}.safetensors" if path.endswith(".sft") else path
    return folder / plain


@dataclass(frozen=True)
class Resolved:
    """What a word led to: the decision, the files of the model, and those of its base where it needs one."""

    word: str
    decision: Decision
    model: Part
    base: Part | None = None


@dataclass(frozen=True)
class ModelFiles:
    """All that is to be loaded: the model, and what is put into it; `loras` with the scales of LORAS."""

    model: Resolved
    vae: Resolved | None = None
    controlnet: Resolved | None = None
    loras: tuple[tuple[Resolved, float], ...] = ()
