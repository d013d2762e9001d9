"""Fields of a request, taken one by one: what is left at the end, nobody asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from pod.util import bounded_json
from pod.util.printable import shown
from server.requests.errors import MISSING, FieldError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.requests.form import Form

_SWITCH: Final = {"true": True, "1": True, "false": False, "0": False}
_MOST_VALUES: Final = 1_000  # of JSON in a field of a form
_LONGEST_NUMBER: Final = 40  # characters


class Fields:
    """The fields of a request that have not been looked at. None counts as left out, as OpenAI has it."""

    def __init__(self, form: Form) -> None:
        self.left = {name: value for name, value in form.values.items() if value is not None}
        self.files = dict(form.files)
        self.textual = form.textual

    def take(self, name: str) -> Any:
        """Return a field as it is; None where it is left out."""
        return self.left.pop(name, None)

    def text(self, name: str, *, required: bool = False) -> str | None:
        """Return a text. Raises FieldError."""
        value = self.take(name)
        if value is None and required:
            raise FieldError(f"{name} is missing.", name, MISSING)
        if value is not None and not isinstance(value, str):
            raise FieldError(f"{name} is not a text.", name)
        return value

    def integer(self, name: str, least: int, most: int) -> int | None:
        """Return a whole number. Raises FieldError."""
        value = self.take(name)
        if isinstance(value, str) and self.textual:
            value = number(value)
        if value is None:
            return None
        if not is_whole(value) or not least <= value <= most:
            raise FieldError(f"{name} is not a whole number from {least} to {most}.", name)
        return int(value)

    def flag(self, name: str) -> bool:
        """Return a switch, off where it is left out. Raises FieldError."""
        value = self.take(name)
        if isinstance(value, str) and self.textual:
            value = _SWITCH.get(value.lower(), value)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise FieldError(f"{name} is neither true nor false.", name)

    def choice(self, name: str, values: Sequence[str]) -> str | None:
        """Return one of some words. Raises FieldError."""
        value = self.take(name)
        if value is not None and value not in values:
            raise FieldError(f"{name} is {shown(value, 40)}, and may be {', '.join(values)}.", name)
        return None if value is None else str(value)

    def table(self, name: str) -> dict[str, Any]:
        """Return an object, as JSON where it comes as text. Raises FieldError."""
        value = self.take(name)
        if isinstance(value, str) and self.textual:
            value = parsed(value)
        if value is not None and not isinstance(value, dict):
            raise FieldError(f"{name} is not an object of JSON.", name)
        return value or {}

    def media(self, name: str) -> list[Any]:
        """Return files: uploaded, or as texts that say where they are."""
        value = self.take(name)
        said = value if isinstance(value, list) else [] if value is None else [value]
        return [*self.files.pop(name, []), *map(_source, said)]


def _source(given: Any) -> Any:
    """Return where a file is: OpenAI's objects hold its address."""
    if isinstance(given, dict) and isinstance(given.get("image_url"), str) and len(given) == 1:
        return given["image_url"]
    return given


def is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number, be it written as 4.0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or value.is_integer()


def number(text: str) -> Any:
    """Return a number that is written as text; the text where it is none."""
    if len(text) > _LONGEST_NUMBER:
        return text
    try:
        return int(text)
    except ValueError:
        pass
    try:
        found = float(text)
    except ValueError:
        return text
    return found if math.isfinite(found) else text


def switch(text: str) -> Any:
    """Return what a text switches; the text where that is neither on nor off."""
    return _SWITCH.get(text.lower(), text)


def parsed(text: str) -> Any:
    """Return what a text is as JSON; the text where it is none."""
    try:
        return bounded_json.parse(text.encode(errors="surrogatepass"), _MOST_VALUES)
    except ValueError:
        return text
