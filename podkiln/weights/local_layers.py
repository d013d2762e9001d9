"""Weight layers that an earlier bake put into an image's layout on this disk: the next finds them there."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from podkiln.oci.spec import Digest
    from podkiln.plan.image_layers import Layer


def keep(layers: Sequence[Layer], before: Path, after: Path) -> None:
    """Have the weight layers that an earlier bake put into the layout in the one that takes its place."""
    for digest in found(layers, before):
        with contextlib.suppress(OSError):  # then it is made again
            os.link(_blob(before, digest), _blob(after, digest))


def found(layers: Sequence[Layer], image: Path) -> list[Digest]:
    """Return which weight layers lie in a layout; none was given its name before it was right."""
    known = [(each.digest, each.size) for each in layers if each.digest]
    return [
        digest
        for digest, size in known
        if (blob := _blob(image, digest)).is_file() and blob.stat().st_size == size
    ]


def _blob(image: Path, digest: Digest) -> Path:
    return image / "blobs" / digest.replace(":", "/")
