"""Given values checked against parameters: one sentence says what is wrong."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any

from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.schema.parameters import Parameter, Schema

LONGEST_TEXT = 20_000  # characters; the lyrics of a long song are 4,000
LONGEST_LIST = 256
_LARGEST = 2.0**53  # beyond it a JSON number is not what was written
_KINDS = {
    "text": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "media": "a file: a data URI, or an https address",
}
_SHOWN = 40  # characters of a wrong value that its sentence repeats


def checked(schema: Schema, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are given, in the types that the pipeline wants. Raises RequestError."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        parameter = schema.parameter(name)
        if parameter is None:
            raise RequestError(_unknown(schema, str(name)), _cut(str(name)))
        if value is not None:
            values[name] = _value(parameter, value)
    for each in schema.parameters:
        if each.required and each.name not in values:
            raise RequestError(f"{each.name} is missing: {schema.task} needs it.", each.name)
    _area(schema, values)
    _batch(schema, values)
    return values


def _unknown(schema: Schema, name: str) -> str:
    names = [each.name for each in schema.parameters]
    # Of a long name a comparison takes a hundred times the memory.
    near = difflib.get_close_matches(name[: 2 * _SHOWN], names, 1, 0.6)
    hint = f"did you mean {near[0]}?" if near else "GET /schema lists what it takes."
    return f"{schema.pipeline} takes no parameter {_shown(name)}: {hint}"


def _value(parameter: Parameter, value: Any) -> Any:
    name = parameter.name
    if not isinstance(value, list | tuple):
        if not parameter.single:
            raise RequestError(f"{name} has to be a list; it is {_said(value)}.", name)
        return _single(parameter, name, value)
    if not parameter.many:
        raise RequestError(f"{name} has to be {_KINDS[parameter.kind]}; it is a list.", name)
    if parameter.length and len(value) != parameter.length:
        raise RequestError(f"{name} has to have {parameter.length} values; it has {len(value)}.", name)
    if not 0 < len(value) <= LONGEST_LIST:
        raise RequestError(f"{name} may have 1 to {LONGEST_LIST} values; it has {len(value)}.", name)
    found = [_single(parameter, f"{name}[{at}]", each) for at, each in enumerate(value)]
    return tuple(found) if parameter.length else found


def _single(parameter: Parameter, where: str, value: Any) -> Any:
    """Return one value, checked; `where` is how the sentence names it."""
    match parameter.kind:
        case "integer" | "number":
            return _number(parameter, where, value)
        case "boolean":
            good = isinstance(value, bool)
        case "text":
            good = isinstance(value, str)
        case _:
            good = isinstance(value, str | bytes)
    if not good:
        raise _wrong(parameter, where, value)
    if parameter.kind == "text":
        _text(parameter, where, value)
    elif parameter.kind == "media" and not value:
        raise RequestError(f"{where} is empty.", parameter.name)
    return value


def _text(parameter: Parameter, where: str, value: str) -> None:
    name = parameter.name
    if len(value) > LONGEST_TEXT:
        raise RequestError(f"{where} may have {LONGEST_TEXT} characters; it has {len(value)}.", name)
    if not value.isascii() and _has_surrogates(value):
        raise RequestError(f"{where} holds half of a character, which no text does.", name)
    if parameter.required and not value.strip():
        raise RequestError(f"{where} is empty.", name)
    if parameter.choices and value not in parameter.choices:
        near = [each for each in parameter.choices if value and each.lower().startswith(value.lower())]
        near = near or difflib.get_close_matches(value, parameter.choices, 1, 0.6)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise RequestError(f"{where} has to be one of {', '.join(parameter.choices)}{hint}", name)


def _has_surrogates(text: str) -> bool:
    """Tell whether a text cannot be written in UTF-8, as tokenizers and files need it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _number(parameter: Parameter, where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(parameter, where, value)
    name = parameter.name
    seed = parameter.maximum is not None and parameter.maximum > _LARGEST
    finite = isinstance(value, int) or math.isfinite(value)  # an int may be larger than any float
    if not finite or (abs(value) > _LARGEST and not seed):
        raise RequestError(f"{where} has to be a finite number of usual size; it is {_said(value)}.", name)
    if parameter.kind == "integer":
        if value != int(value):
            raise _wrong(parameter, where, value)
        value = int(value)
    else:
        value = float(value)
    low, high = parameter.minimum, parameter.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise RequestError(f"{where} has to be {bounds(low, high)}; it is {_said(value)}.", name)
    if parameter.multiple and (value - parameter.offset) % parameter.multiple:
        raise RequestError(f"{where} has to be {rule(parameter)}; {_near(parameter, int(value))}.", name)
    return float(value) if parameter.kind == "number" else int(value)


def bounds(low: float | None, high: float | None) -> str:
    """Return what a range is, as a part of a sentence."""
    if low is None:
        return f"{high} or less" if high is not None else "any number"
    return f"{_plain(low)} or more" if high is None else f"between {_plain(low)} and {_plain(high)}"


def rule(parameter: Parameter) -> str:
    """Return what whole numbers a parameter takes, as a part of a sentence."""
    if not parameter.offset:
        return f"a multiple of {parameter.multiple}"
    return f"a multiple of {parameter.multiple} and {parameter.offset} more"


def _near(parameter: Parameter, value: int) -> str:
    """Return a value and its neighbours that would do."""
    step = parameter.multiple or 1
    below = (value - parameter.offset) // step * step + parameter.offset
    low, high = parameter.minimum or 0, parameter.maximum
    near = [each for each in (below, below + step) if each >= low and (high is None or each <= high)]
    return f"it is {value}: take {' or '.join(map(str, near))}"


def _area(schema: Schema, values: Mapping[str, Any]) -> None:
    sides = []
    for name in ("width", "height"):
        parameter = schema.parameter(name)
        side = values.get(name) or (parameter.default if parameter else None)
        if not isinstance(side, int):
            return
        sides.append(side)
    width, height = sides
    if schema.megapixels and width * height > schema.megapixels * 1e6:
        named = "width" if values.get("width") else "height"
        raise RequestError(
            f"width times height may be {schema.megapixels:g} megapixels;"
            f" {width} x {height} are {width * height / 1e6:.1f}.",
            named,
        )


def _batch(schema: Schema, values: Mapping[str, Any]) -> None:
    """Check how many outputs several prompts and several outputs of each make."""
    prompts = values.get("prompt")
    for each in schema.parameters:
        if isinstance(prompts, list) and each.name.startswith("num_") and each.name.endswith("_per_prompt"):
            number = len(prompts) * (values.get(each.name) or 1)
            if each.maximum is not None and number > each.maximum:
                raise RequestError(
                    f"{_plain(each.maximum)} outputs can be made at once; {len(prompts)} prompts"
                    f" would make {number}.",
                    "prompt",
                )


def _wrong(parameter: Parameter, where: str, value: Any) -> RequestError:
    return RequestError(f"{where} has to be {_KINDS[parameter.kind]}; it is {_said(value)}.", parameter.name)


def _said(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        kinds = {"bool": str(value).lower(), "dict": "an object", "list": "a list", "NoneType": "null"}
        return kinds.get(type(value).__name__, "something else")
    if isinstance(value, str):
        return repr(_cut(value))
    return _cut(repr(value))


def _shown(name: str) -> str:
    return name if name.isascii() and name.isidentifier() and len(name) <= _SHOWN else repr(_cut(name))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"
