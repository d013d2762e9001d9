"""Errors in the words of the person who wrote the YAML."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from podkiln.config import messages
from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.messages import PatternType
from podkiln.util import quoting


class Part(StrictModel):
    width: int = 1


class Whole(StrictModel):
    name: Annotated[str, PatternType(r"^[a-z]+$", "lower-case letters")] = "a"
    secret: Annotated[str, PatternType(r"^[a-z]+$", "a secret", secret=True)] = "a"
    color: Literal["red", "blue"] = "red"
    part: Part | None = None
    parts: TupleOf[Part] = ()
    named: dict[str, Part] = Field({})


def sentence(data: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as raised:
        Whole.model_validate(data)
    error = raised.value.errors(include_url=False)[0]
    return messages.sentence(error, Whole, error["loc"])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"name": "A"}, "lower-case letters is wanted (it is 'A')."),
        ({"name": 5}, "lower-case letters is wanted; 5 is none: put it in quotes."),
        ({"name": None}, "lower-case letters is wanted (it is null)."),
        ({"name": ["a"]}, "lower-case letters is wanted."),
        ({"secret": "HUNTER2"}, "a secret is wanted."),
        ({"color": "green"}, "'red' or 'blue' is wanted (it is 'green')."),
        ({"part": 5}, "a mapping of keys is wanted (it is 5)."),
        ({"part": {"width": "wide"}}, "a whole number is wanted (it is 'wide')."),
        ({"parts": 5}, "a list is wanted (it is 5)."),
        ({"nane": "a"}, "unknown key. Did you mean 'name'?"),
        ({"part": {"widht": 1}}, "unknown key. Did you mean 'width'?"),
        ({"parts": [{"widht": 1}]}, "unknown key. Did you mean 'width'?"),
        ({"named": {"color": {"widht": 1}}}, "unknown key. Did you mean 'width'?"),
        ({"part": {"name": 1}}, "unknown key."),  # a key of another place is no suggestion
    ],
)
def test_what_is_wrong_is_said_plainly(data: dict[str, Any], expected: str) -> None:
    assert sentence(data) == expected


def test_a_long_value_is_cut() -> None:
    assert len(quoting.shown("x" * 10_000)) == 81
