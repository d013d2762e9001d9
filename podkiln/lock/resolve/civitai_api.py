"""The shape of CivitAI's answer about a model version, as far as podkiln reads it.

Source: https://developer.civitai.com/site/reference/model-versions; other keys are
ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, ConfigDict, Field

from podkiln.config.messages import PatternType
from podkiln.config.model import LARGEST_FILE
from podkiln.lock.resolve.http import Shape, checked

_KIB: Final = 1024

Number = Annotated[int, Field(gt=0, lt=1 << 53)]
Word = Annotated[str, Field(max_length=4096)]
Hash = Annotated[
    str, PatternType(r"^[0-9A-Fa-f]{64}$", "a sha256 of 64 hex digits"), AfterValidator(str.upper)
]
Kibibytes = Annotated[float, Field(gt=0, le=LARGEST_FILE / _KIB, allow_inf_nan=False)]


class _Open(Shape):
    """Base of what may hold more than is looked at."""

    model_config = ConfigDict(extra="allow")


class _Hashes(_Open):
    SHA256: Hash | None = None


class _Metadata(_Open):
    format: Word | None = None
    fp: Word | None = None
    size: Word | None = None


class _File(_Open):
    id: Number | None = None
    name: Word | None = None
    type: Word | None = None
    sizeKB: Kibibytes | None = None  # noqa: N815 - CivitAI's own name
    primary: bool | None = None
    metadata: _Metadata | None = None
    hashes: _Hashes | None = None
    virusScanResult: Word | None = None  # noqa: N815
    pickleScanResult: Word | None = None  # noqa: N815
    downloadUrl: Word | None = None  # noqa: N815


class _Model(_Open):
    name: Word | None = None
    type: Word | None = None
    mode: Word | None = None


class _Version(_Open):
    id: Number | None = None
    modelId: Number | None = None  # noqa: N815
    name: Word | None = None
    status: Word | None = None
    availability: Word | None = None
    usageControl: Word | None = None  # noqa: N815
    earlyAccessEndsAt: Word | None = None  # noqa: N815
    requireAuth: bool | None = None  # noqa: N815
    model: _Model | None = None
    files: list[_File] | None = None


def version(data: Any, what: str) -> dict[str, Any]:
    """Return a version whose keys are of the right type, or not there. Raises UnclearError.

    Args:
        data: Parsed JSON.
        what: What it is, for the sentence.
    """
    return checked(_Version, data, what).model_dump(exclude_none=True)
