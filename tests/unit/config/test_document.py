"""A file and its lines: an error is found where a person would look for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import Field

from podkiln.config import document
from podkiln.config.document import StrictModel, TupleOf
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """\
title: Mine     # line 1
parts:
  - width: 1
    note: a
  - width: 2    # line 5
named:
  first:
    width: 3    # line 8
"""


class Part(StrictModel):
    width: int
    note: str | None = None


class Whole(StrictModel):
    title: str
    parts: TupleOf[Part] = ()
    named: dict[str, Part] = Field({})
    either: int | TupleOf[Part] = 0


@pytest.fixture
def file(tmp_path: Path) -> document.Document:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    return document.load(path)


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("title",), 1),
        (("parts",), 2),
        (("parts", 0), 3),
        (("parts", 0, "note"), 4),
        (("parts", 1, "width"), 5),
        (("named", "first", "width"), 8),
        (("parts", 1, "note"), 5),  # not there: its parent
        (("parts", 7), 2),
        (("nothing",), 1),
        ((), 1),
    ],
)
def test_every_key_has_its_line(file: document.Document, location: tuple[str | int, ...], line: int) -> None:
    assert file.line(location) == line


def test_an_error_names_file_line_and_key(file: document.Document) -> None:
    error = file.error(("parts", 1, "width"), "is too wide.", hint="Make it narrower.")
    assert str(error) == f"{file.path}:5: parts[1].width: is too wide."
    assert error.hint == "Make it narrower."


def test_lists_are_read_into_tuples(file: document.Document) -> None:
    """So that what was described can neither change nor be unhashable."""
    whole = file.parse(Whole)
    assert [part.width for part in whole.parts] == [1, 2]
    assert isinstance(whole.parts, tuple)


def test_has_tells_what_the_file_itself_says(file: document.Document) -> None:
    assert file.has(("parts", 1, "width"))
    assert not file.has(("parts", 1, "note"))


def test_a_misspelt_key_is_called_unknown_not_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("titel: Mine\n")
    with pytest.raises(DescriptionError, match=r"x.yaml:1: titel: unknown key. Did you mean 'title'?"):
        document.load(path).parse(Whole)


def test_of_a_choice_the_member_that_fits_best_is_judged(tmp_path: Path) -> None:
    """A list was meant, so `expected a whole number` would mislead."""
    path = tmp_path / "x.yaml"
    path.write_text("title: Mine\neither:\n  - width: wide\n")
    with pytest.raises(DescriptionError, match=r"x.yaml:3: either\[0\].width: expected a whole number"):
        document.load(path).parse(Whole)


def test_an_error_in_merged_data_is_blamed_on_the_file_that_says_it(
    file: document.Document, tmp_path: Path
) -> None:
    path = tmp_path / "parent.yaml"
    path.write_text("# a comment\ntitle: 5\n")
    parent = document.load(path)
    with pytest.raises(DescriptionError, match=r"parent.yaml:2: title: expected text"):
        file.parse(Whole, {**file.data, "title": 5}, find=lambda place: (parent, place))


def test_an_error_in_a_part_is_named_under_its_key(file: document.Document) -> None:
    with pytest.raises(DescriptionError, match=r"either\.title: expected text"):
        file.parse(Whole, {"title": 5}, at=("either",))
