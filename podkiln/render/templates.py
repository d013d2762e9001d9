"""Rendering the templates of templates/ with Jinja."""

from __future__ import annotations

import traceback
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from podkiln.config.document import ROOT
from podkiln.errors import RenderError
from podkiln.render.context_file import File

if TYPE_CHECKING:
    from collections.abc import Mapping

TEMPLATES = ROOT / "templates"


@cache
def environment() -> Environment:
    """Return the one Jinja environment: undefined names are errors, and blocks leave no blank lines."""
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Dockerfiles and shell, not HTML; `quoted` is the escape that fits
    )
    jinja.filters["quoted"] = _quoted
    jinja.filters["one_line"] = _one_line
    return jinja


def _quoted(text: str) -> str:
    """Quote a value for a Dockerfile: one line inside double quotes, with no variable expanded."""
    return '"' + _one_line(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


def _one_line(text: str) -> str:
    """Fold a text that YAML lets go over several lines."""
    return " ".join(text.split())


def render(name: str, facts: Mapping[str, Any], *, executable: bool = False) -> File:
    """Render a template. Raises RenderError, with the template's file and line."""
    try:
        text = environment().get_template(name).render(facts)
    except jinja2.TemplateError as wrong:
        raise RenderError(f"{_place(wrong, name)}: {wrong.message}.") from None
    return File(text.encode(), executable=executable)


def _place(wrong: jinja2.TemplateError, name: str) -> str:
    """Return template and line of an error: syntax errors know theirs, others have a traceback."""
    if isinstance(wrong, jinja2.TemplateSyntaxError):
        return f"templates/{wrong.name}:{wrong.lineno}"
    frames = traceback.extract_tb(wrong.__traceback__)
    places = [(Path(frame.filename), frame.lineno) for frame in frames]
    inside = [(path, line) for path, line in places if path.is_relative_to(TEMPLATES)]
    return (
        f"templates/{inside[-1][0].relative_to(TEMPLATES)}:{inside[-1][1]}" if inside else f"templates/{name}"
    )
