"""Pydantic's errors as sentences for the person who wrote the YAML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import core_schema

from podkiln.util.quoting import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import GetCoreSchemaHandler

_OF_TEXT = frozenset({"matching", "string_pattern_mismatch", "string_type"})

# By pydantic's error types: https://docs.pydantic.dev/latest/errors/validation_errors/
_WANTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "matching": lambda said: f"expected {said['what']}",
    "string_pattern_mismatch": lambda said: f"expected text of the form {said['pattern']}",
    "string_type": lambda _: "expected text",
    "int_type": lambda _: "expected a whole number",
    "int_from_float": lambda _: "expected a whole number",
    "float_type": lambda _: "expected a number",
    "bool_type": lambda _: "expected true or false",
    "literal_error": lambda said: f"expected {said['expected']}",
    "model_type": lambda _: "expected a mapping of keys",
    "model_attributes_type": lambda _: "expected a mapping of keys",
    "dict_type": lambda _: "expected a mapping of keys",
    "tuple_type": lambda _: "expected a list",
    "list_type": lambda _: "expected a list",
    "too_short": lambda said: f"expected at least {said['min_length']} entry",
    "greater_than": lambda said: f"expected more than {said['gt']}",
    "greater_than_equal": lambda said: f"expected at least {said['ge']}",
    "less_than_equal": lambda said: f"expected at most {said['le']}",
    "invalid_key": lambda _: "a key must be text: quote it",
}


@dataclass(frozen=True)
class PatternType:
    """Text of one form: the pattern for programs, the words for people. `secret` text is not repeated."""

    pattern: str
    what: str
    secret: bool = False

    def __get_pydantic_core_schema__(
        self, _source: Any, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Make a string schema whose error says what is expected."""
        text = core_schema.str_schema(pattern=self.pattern, strict=True)
        return core_schema.custom_error_schema(
            text,
            custom_error_type="matching",
            custom_error_message="expected {what}",
            custom_error_context={"what": self.what, "secret": self.secret},
        )


def sentence(error: Any, shape: type[BaseModel], location: Sequence[str | int]) -> str:
    """Return the sentence for one of pydantic's errors.

    Args:
        error: As ValidationError.errors() has it.
        shape: What the whole data was validated against.
        location: Keys and indices that lead to it, without the members of unions.
    """
    kind, given = error["type"], error.get("input")
    if kind == "extra_forbidden":
        return f"unknown key. {did_you_mean(str(location[-1]), _keys_at(shape, location[:-1]))}".rstrip()
    if kind == "missing":
        return "this key is missing."
    wanted = _WANTED.get(kind)
    message = wanted(error.get("ctx", {})) if wanted else str(error["msg"]).removeprefix("Value error, ")
    message = message.rstrip(".")
    secret = error.get("ctx", {}).get("secret")
    if secret or kind in {"value_error", "invalid_key"} or isinstance(given, dict | list):
        return f"{message}."
    if kind in _OF_TEXT and isinstance(given, bool | int | float):
        return f"{message}; {shown(given)} is not text: put it in quotes."
    return f"{message} (it is {shown(given)})."


def _keys_at(shape: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the keys that exist at a place: what a misspelt one could have meant."""
    here: Any = shape
    for step in location:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(step))
            here = field.annotation if field else None
        elif get_origin(here) is not None:  # a list's or a mapping's entries, through Optional and Annotated
            inner = [part for part in get_args(here) if _models_in(part)]
            here = inner[-1] if inner else None
    return [name for model in _models_in(here)[:1] for name in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]
