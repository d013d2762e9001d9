"""The parameters of a task, as clients see them; the interface of this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from server.schema import checking, json_schema

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
        single: Whether one value is taken; where not, `many` is set.
        length: How many values a list has to have; 0 for any number.
        minimum, maximum, multiple: Bounds of numbers; None where there are none.
        offset: What is left over: the value is a multiple of `multiple` and that much more.
        choices: Values that are taken; empty for any.
        media: What kind of file MEDIA is: "image", "video", "audio". A video may be several pictures to the
            pipeline; it is one file to clients.
        advanced: Whether a form shows it among the further settings.
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
    single: bool = True
    length: int = 0
    offset: int = 0
    media: str = ""
    advanced: bool = False


@dataclass(frozen=True)
class Schema:
    """The parameters of one task of a pipeline, in the order in which a form shows them.

    `megapixels` bounds `width` times `height`, in millions of pixels; 0 for no bound.
    """

    task: str
    pipeline: str
    parameters: tuple[Parameter, ...]
    megapixels: float = 0

    def parameter(self, name: str) -> Parameter | None:
        """Return a parameter by its name."""
        return next((each for each in self.parameters if each.name == name), None)

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that are given, checked. Raises RequestError, naming the first that is wrong.

        What is null is as if it was not given. Media may be text (data URI, address) or bytes, and are
        handed on as they are.
        """
        return checking.checked(self, given)

    def to_json_schema(self) -> dict[str, Any]:
        """Return it as JSON Schema (draft 2020-12), with hints for forms in `x-` keys.

        `x-kind` is the parameter's kind, `x-media` what files it takes, `x-many` that it takes lists,
        `x-multiple` and `x-offset` what whole numbers it takes, `x-advanced` that it is for a few.
        """
        return json_schema.of(self)
