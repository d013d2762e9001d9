"""What takes the jobs of an image (`serve` of a variant), and the Python packages that it asks for.

They stand in variants/python/WAY.in; a way without such a file needs none. In the image they lie in a folder
of their own, which the worker alone looks into: what they need may be other versions than custom nodes have.
Those of DIFFUSERS, which is served in ComfyUI's place, lie in the image's own environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from podkiln.config import python_requirements
from podkiln.config.document import ROOT

if TYPE_CHECKING:
    from podkiln.config.variant import LoadedVariant


DIFFUSERS: Final = "diffusers"


def requirements(described: LoadedVariant) -> tuple[str, ...]:
    """Return the requirements of a variant's way to serve, a line each; none where it serves no jobs."""
    file = ROOT / "variants" / "python" / f"{described.spec.serve}.in"
    return tuple(python_requirements.plain_lines(file)) if file.is_file() else ()
