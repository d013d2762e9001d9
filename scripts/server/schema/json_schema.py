"""A schema as JSON Schema: https://json-schema.org/draft/2020-12/schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from server.schema import checking

if TYPE_CHECKING:
    from server.schema.parameters import Parameter, Schema

_TYPES = {"text": "string", "media": "string"}


def of(schema: Schema) -> dict[str, Any]:
    """Return a task's parameters as the properties of an object."""
    found: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{schema.pipeline}: {schema.task}",
        "type": "object",
        "properties": {each.name: _property(each) for each in schema.parameters},
        "required": [each.name for each in schema.parameters if each.required],
        "additionalProperties": False,
    }
    return found | ({"x-megapixels": schema.megapixels} if schema.megapixels else {})


def _property(parameter: Parameter) -> dict[str, Any]:
    found = _value(parameter)
    if parameter.many:
        items: dict[str, Any] = {"type": "array", "items": found, "minItems": parameter.length or 1}
        items["maxItems"] = parameter.length or checking.LONGEST_LIST
        found = {"anyOf": [found, items]} if parameter.single else items
    description = parameter.description
    if parameter.offset:
        description = f"{description} It has to be {checking.rule(parameter)}.".strip()
    if description:
        found["description"] = description
    if parameter.default is not None:
        default = parameter.default
        found["default"] = list(default) if isinstance(default, tuple) else default
    hints = {
        "x-kind": parameter.kind,
        "x-media": parameter.media,
        "x-many": parameter.many,
        "x-multiple": parameter.multiple,
        "x-offset": parameter.offset,
        "x-advanced": parameter.advanced,
    }
    return found | {key: value for key, value in hints.items() if value}


def _value(parameter: Parameter) -> dict[str, Any]:
    """Return what holds for one value."""
    found: dict[str, Any] = {"type": _TYPES.get(parameter.kind, parameter.kind)}
    if parameter.kind == "text":
        found["maxLength"] = checking.LONGEST_TEXT
        if parameter.required:
            found["minLength"] = 1
    if parameter.choices:
        found["enum"] = list(parameter.choices)
    for key, bound in (("minimum", parameter.minimum), ("maximum", parameter.maximum)):
        if bound is not None:
            found[key] = int(bound) if bound == int(bound) else bound
    if parameter.multiple and not parameter.offset:
        found["multipleOf"] = parameter.multiple
    return found
