"""Templates: undefined names are errors, and an error has its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from podkiln.errors import RenderError
from podkiln.render import templates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of templates in the place of ours."""
    monkeypatch.setattr(templates, "TEMPLATES", tmp_path)
    templates.environment.cache_clear()
    yield tmp_path
    templates.environment.cache_clear()


@pytest.mark.parametrize(
    ("main", "included", "sentence"),
    [
        ("one\n{{ nothing }}\n", "", "templates/t.j2:2: 'nothing' is undefined."),
        ("{{ nothing.at.all }}\n", "", "templates/t.j2:1: 'nothing' is undefined."),
        ("\n{% if nothing %}x{% endif %}\n", "", "templates/t.j2:2: 'nothing' is undefined."),
        ("x\n{% include 'i.j2' %}\n", "\n\n{{ nothing }}\n", "templates/i.j2:3: 'nothing' is undefined."),
        ("x\n{% if %}\n", "", "templates/t.j2:2: Expected an expression, got 'end of statement block'."),
        ("x\n{% include 'none.j2' %}\n", "", "templates/t.j2:2: 'none.j2' not found"),
    ],
)
def test_a_template_that_does_not_fit_is_one_sentence(
    main: str, included: str, sentence: str, folder: Path
) -> None:
    (folder / "t.j2").write_text(main)
    (folder / "i.j2").write_text(included)
    with pytest.raises(RenderError) as raised:
        templates.render("t.j2", {"known": 1})
    assert str(raised.value).startswith(sentence)
