"""What readers of JSON take differently is refused in a clause; all else is read as Python reads it."""

from __future__ import annotations

import json

import pytest

from podkiln.util import strict_json


def test_what_all_readers_take_alike_is_taken() -> None:
    text = '{"a": [1, -2, 1.5, null, true], "b": {"a": "\\u00fc"}}'
    assert strict_json.parse(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' is duplicated in one object"),
        ('[{"a": {"b": 1, "b": 1}}]', "the key 'b' is duplicated in one object"),
        (f'{{"{"k" * 500}": 1, "{"k" * 500}": 1}}', "k{79}… is duplicated"),
        ('{"a": NaN}', "NaN is not a number in JSON"),
        ("-Infinity", "-Infinity is not a number in JSON"),
        ("9" * 4301, "a number of more than 4300 digits"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_only_some_take_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        strict_json.parse(text)


def test_the_digits_that_a_number_may_have_are_the_callers_choice() -> None:
    assert strict_json.parse("-" + "9" * 100, digits=100) == -int("9" * 100)
    with pytest.raises(ValueError, match="a number of more than 100 digits"):
        strict_json.parse("-" + "9" * 101, digits=100)


def test_what_is_no_json_says_where() -> None:
    with pytest.raises(json.JSONDecodeError) as said:
        strict_json.parse('{\n"a" 1}')
    assert said.value.lineno == 2
