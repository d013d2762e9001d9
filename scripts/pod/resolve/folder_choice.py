"""The folder of a file by what it is: what the head of the file tells, and what its hub claims."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pod.model_refs import filenames
from pod.model_refs.model_ref import LORAS
from pod.net.http import RefusedError
from pod.resolve.model_names import again, say_it
from pod.util.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pod.model_refs.model_ref import ModelRef
    from pod.resolve.model_type import ModelType


@dataclass(frozen=True)
class ResolvedFile:
    """The file that a reference names. `claimed`: the type that its hub gives; sizes in bytes."""

    name: str
    source: Mapping[str, Any]
    expected: str
    size: int | None = None
    claimed: ModelType | None = None
    remarks: tuple[str, ...] = ()


def agreed(wish: ModelRef, told: ModelType | None, found: ResolvedFile) -> ModelType:
    """Put together what the head of a file and its hub say. Raises RefusedError where they do not agree."""
    claimed = found.claimed
    if claimed and claimed.vague and filenames.suffix(found.name) != ".ckpt":
        claimed = None
    if told and claimed and not told.agrees_with(claimed):
        raise RefusedError(f"is {told.what} by its tensors, and {claimed.what} on CivitAI: {say_it(wish)}")
    if result := told or claimed:
        return result
    raise RefusedError(f"does not say what kind of model it is: {say_it(wish)}")


def of_loras(wish: ModelRef, told: ModelType | None) -> str:
    """LORAS says what it is, and nothing that says otherwise is fetched. Raises RefusedError."""
    if told and told.folder != LORAS:
        place = f", as {told.beside}={again(wish)}" if told.beside else ""
        raise RefusedError(
            f"is {told.what}, not a LoRA: put it into MODELS{place}, or insist by {LORAS}={again(wish)} "
            "in LORAS"
        )
    return LORAS
