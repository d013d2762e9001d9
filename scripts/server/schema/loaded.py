"""The schema of a pipeline that is loaded: whatever has __call__, components and a configuration."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from typing import TYPE_CHECKING, Any

from server.schema import reading, source
from server.schema.reading import Facts

if TYPE_CHECKING:
    from server.schema.exposure import Limits
    from server.schema.parameters import Schema

_LIBRARY = "DiffusionPipeline"  # what all pipelines are made of; nothing in it is of one


def of(
    pipeline: Any,
    task: str,
    schedulers: tuple[str, ...] = (),
    scheduler: str = "",
    limits: Limits | None = None,
) -> Schema:
    """Return the schema of a task of a loaded pipeline."""
    kind = type(pipeline)
    code = _code(kind)
    values = {}
    for name in source.names(code):
        found = _value(pipeline, name)
        if found is not _NOTHING:
            values[name] = found
    facts = Facts(code, values, schedulers, scheduler)
    signature = inspect.signature(kind.__call__)
    return reading.read(kind.__name__, task, signature, inspect.getdoc(kind.__call__) or "", facts, limits)


def _code(kind: type) -> str:
    """Return the source of a class and of the pipelines that it is made of; "" where it cannot be had."""
    parts = []
    for each in kind.__mro__:
        if each.__name__ == _LIBRARY:
            break
        if each.__name__.endswith("Pipeline"):
            parts.append(_class(each))
    return "\n\n".join(parts)


def _class(kind: type) -> str:
    """Return the source of a class, in a tenth of the time that inspect.getsource takes."""
    lines = linecache.getlines(getattr(sys.modules[kind.__module__], "__file__", None) or "")
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return ""
    found = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    return "\n".join("".join(lines[node.lineno - 1 : node.end_lineno]) for node in found)


_NOTHING = object()


def _value(pipeline: Any, dotted: str) -> Any:
    """Return an attribute that is a plain value, and ... for a component that is there.

    Properties of pipelines may raise anything before a run.
    """
    found = pipeline
    for name in dotted.split("."):
        try:
            found = getattr(found, name)
        except Exception:  # noqa: BLE001
            return _NOTHING
    if isinstance(found, list | tuple):
        numbers = all(isinstance(each, int | float) for each in found)
        return tuple(found) if numbers else _NOTHING
    if found is None or isinstance(found, str | int | float | bool):
        return found
    return ... if "." not in dotted else _NOTHING
