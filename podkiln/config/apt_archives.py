"""The archives that locked Debian packages may come from, as variants/system/archives.yaml lists them.

Where they are served is no part of it: the client knows that, from its own sources.
"""

from __future__ import annotations

from functools import cache

from podkiln.config import document
from podkiln.config.document import ROOT, StrictModel, TupleOf
from podkiln.config.fields import LayerName

FILE = ROOT / "variants" / "system" / "archives.yaml"


class AptArchive(StrictModel):
    """One archive. `label` is that of its Release files; `security`: what it holds are security updates."""

    label: str
    name: LayerName
    security: bool = False


class _Archives(StrictModel):
    archives: TupleOf[AptArchive]


@cache
def load() -> dict[str, AptArchive]:
    """Return the archives by label. Raises DescriptionError."""
    return {each.label: each for each in document.load(FILE).parse(_Archives).archives}
