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
        ({"name": "A"}, "expected lower-case letters (it is 'A')."),
        ({"name": 5}, "expected lower-case letters; 5 is not text: put it in quotes."),
        ({"name": None}, "expected lower-case letters (it is null)."),
        ({"name": ["a"]}, "expected lower-case letters."),
        ({"secret": "HUNTER2"}, "expected a secret."),
        ({"color": "green"}, "expected 'red' or 'blue' (it is 'green')."),
        ({"part": 5}, "expected a mapping of keys (it is 5)."),
        ({"part": {"width": "wide"}}, "expected a whole number (it is 'wide')."),
        ({"parts": 5}, "expected a list (it is 5)."),
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
