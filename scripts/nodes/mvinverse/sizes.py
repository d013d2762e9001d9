"""The size at which MVInverse looks at images, as upstream's inference.py computes it."""

from __future__ import annotations

from typing import Final

from .pod_facts import NodeError

PATCH: Final = 14
"""Height and width are multiples of it: the patches of its encoder."""
LONGEST: Final = 1024
"""The longest side that upstream allows."""


def target(width: int, height: int, longest: int = LONGEST) -> tuple[int, int]:
    """Return width and height for the model: no side above `longest`, whole patches, never enlarged.

    Raises NodeError for an image that is smaller than one patch.
    """
    if max(width, height) > longest:
        scale = longest / max(width, height)
        width, height = int(width * scale), int(height * scale)
    fitted = width // PATCH * PATCH, height // PATCH * PATCH
    if 0 in fitted:
        raise NodeError(
            f"MVInverse needs images of at least {PATCH} x {PATCH} pixels; these come to {width} x {height}."
        )
    return fitted
