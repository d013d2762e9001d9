"""Weight layers that an earlier bake put into an image's layout on this disk: the next finds them there."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.oci.spec import Digest
    from podkiln.plan.plan import Plan


def keep(made: Plan, before: Path, after: Path) -> None:
    """Have the weight layers that an earlier bake put into the layout in the one that takes its place."""
    for digest in found(made, before):
        with contextlib.suppress(OSError):  # then it is made again
            os.link(_blob(before, digest), _blob(after, digest))


def found(made: Plan, image: Path) -> list[Digest]:
    """Return which of a plan's weight layers lie in a layout; none was given its name before it was right."""
    layers = [(each.digest, each.size) for each in made.layers if each.digest]
    return [
        digest
        for digest, size in layers
        if (blob := _blob(image, digest)).is_file() and blob.stat().st_size == size
    ]


def _blob(image: Path, digest: Digest) -> Path:
    return image / "blobs" / digest.replace(":", "/")
