"""The parameters of a task, as clients see them; the interface of this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT, INTEGER, NUMBER, BOOLEAN, MEDIA = "text", "integer", "number", "boolean", "media"


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: The pipeline's own.
        kind: TEXT, INTEGER, NUMBER, BOOLEAN or MEDIA.
        description: A sentence or more, from the docstring.
        default: None where it has none; what the pipeline takes when it is left out.
        required: Whether it must be given.
        many: Whether a list of values is taken too.
        minimum, maximum, multiple: Bounds of numbers; None where there are none.
        choices: Values that are taken; empty for any.
    """

    name: str
    kind: str
    description: str = ""
    default: Any = None
    required: bool = False
    many: bool = False
    minimum: float | None = None
    maximum: float | None = None
    multiple: int | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """The parameters of one task of a pipeline, in the order in which a form shows them."""

    task: str
    pipeline: str
    parameters: tuple[Parameter, ...]

    def parameter(self, name: str) -> Parameter | None:
        """Return a parameter by its name."""
        return next((each for each in self.parameters if each.name == name), None)

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that are given, checked. Raises RequestError, naming the first that is wrong."""
        raise NotImplementedError

    def to_json_schema(self) -> dict[str, Any]:
        """Return it as JSON Schema (draft 2020-12)."""
        raise NotImplementedError
