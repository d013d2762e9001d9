"""The inputs of presets: what a request says of them, checked field by field. Pure, but for paths.

A preset says of each input what it may be; the same facts make the JSON Schema that clients see.
"""

from __future__ import annotations

import math
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from comfy.workflow import Target
from pod.util.printable import shown
from worker import media
from worker.media import UnusableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from comfy.workflow import Named

MEDIA: Final = (media.IMAGE, media.VIDEO, media.AUDIO)
RANDOM: Final = -1
"""What stands for a number that is drawn, in many programs' requests for a seed."""
LARGEST_RANDOM: Final = (1 << 53) - 1
"""Clients whose numbers are all floats, those in JavaScript, still tell this one from its neighbours."""
_LARGEST_SEED: Final = (1 << 64) - 1  # that ComfyUI's samplers take
_LONGEST: Final = 100_000  # characters of a text, where a preset says nothing of it
_JSON_TYPES: Final = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}
_EXAMPLES: Final = {
    media.IMAGE: "https://example.com/picture.png",
    media.VIDEO: "https://example.com/video.mp4",
    media.AUDIO: "https://example.com/sound.wav",
}


@dataclass(frozen=True)
class Needed:
    """A model that is needed, and the variable that switches it on in a pod."""

    id: str
    title: str
    env: str


@dataclass(frozen=True)
class Input:
    """One input of a preset.

    `at`: the inputs of nodes that get its value. `choices`: for a choice, the value behind each word. `adds`
    and `removes`: what changes in the workflow where it is given, in the API form; `instead_of`: inputs that
    it takes the place of. `models`: those that it needs; `unmet`: what it needs and the image does not have.
    """

    name: str
    type: str
    at: tuple[Target, ...]
    description: str = ""
    required: bool = False
    default: Any = None
    random: bool = False
    min: float | None = None
    max: float | None = None
    multiple_of: int | None = None
    pattern: str | None = None
    min_length: int = 0
    max_length: int = _LONGEST
    choices: Mapping[str, Any] = field(default_factory=dict)
    instead_of: tuple[str, ...] = ()
    adds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    removes: tuple[str, ...] = ()
    models: tuple[Needed, ...] = ()
    unmet: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, name: str, row: Mapping[str, Any]) -> Input:
        """Read one of presets.json. Raises KeyError, TypeError."""
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in row.items()
        }
        at = tuple(Target(node, key) for node, _, key in (each.partition(".") for each in row["at"]))
        models = tuple(Needed(**each) for each in row.get("models", ()))
        return cls(**{**given, "name": name, "at": at, "models": models})

    @property
    def schema(self) -> dict[str, Any]:
        """Return its part of a JSON Schema (draft 2020-12)."""
        limits = {
            "minimum": self.min,
            "maximum": self.max,
            "multipleOf": self.multiple_of,
            "pattern": self.pattern,
            "default": None if self.random or self.required else self.default,
        }
        about: dict[str, Any] = {"type": _JSON_TYPES.get(self.type, "string")}
        if self.type == "string":
            about |= {"minLength": self.min_length, "maxLength": self.max_length}
        if self.type == "choice":
            about["enum"] = list(self.choices)
        if self.type in MEDIA:
            about["contentMediaType"] = f"{self.type}/*"
        if self.description:
            about["description"] = self.description
        return about | {key: value for key, value in limits.items() if value is not None}

    @property
    def example(self) -> Any:
        """Return what stands for it in an example of a request."""
        return _EXAMPLES[self.type] if self.type in MEDIA else self.default

    def read(self, given: Any, folders: Sequence[Path]) -> Any:
        """Return the value for the workflow; of a file, the file. Raises UnusableError."""
        if self.unmet:
            raise UnusableError(f"it needs {' and '.join(self.unmet)}, which this image does not have")
        if self.type in MEDIA:
            if not isinstance(given, str) or not given.strip():
                raise UnusableError(f"expected a text: {media.WAYS}")
            return media.named(self.name, self.type, given, folders)
        return {
            "string": self._text,
            "integer": self._number,
            "number": self._number,
            "boolean": self._switch,
            "choice": self._choice,
        }[self.type](given)

    def drawn(self) -> int:
        """Return a random value."""
        least, most = int(self.min or 0), int(self.max if self.max is not None else LARGEST_RANDOM)
        return least + secrets.randbelow(most - least + 1)

    def _text(self, given: Any) -> str:
        if not isinstance(given, str):
            raise UnusableError(f"expected a text, not {_kind(given)}")
        if len(given.strip()) < self.min_length:
            raise UnusableError(
                "it is empty" if self.min_length == 1 else f"it has fewer than {self.min_length} characters"
            )
        if len(given) > self.max_length:
            raise UnusableError(f"it has {len(given)} characters, and {self.max_length} are the most")
        if self.pattern and not re.fullmatch(self.pattern, given):
            raise UnusableError(f"{shown(given, 40)} is not of the form {self.pattern}")
        return given

    def _number(self, given: Any) -> float:
        whole = self.type == "integer"
        if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
            raise UnusableError(f"expected a {'whole number' if whole else 'number'}, not {_kind(given)}")
        if whole and given != int(given):
            raise UnusableError(f"{given} is no whole number")
        value = int(given) if whole else given
        if self.random and value == RANDOM:
            return self.drawn()
        most = _LARGEST_SEED if self.random and self.max is None else self.max
        if (self.min is not None and value < self.min) or (most is not None and value > most):
            raise UnusableError(f"{shown(value, 30)} is not {_span(self.min, most)}")
        if self.multiple_of and value % self.multiple_of:
            raise UnusableError(f"{value} is no multiple of {self.multiple_of}{self._near(int(value))}")
        return value

    def _near(self, value: int) -> str:
        """Return the nearest multiples that are allowed, as the end of a sentence."""
        step = self.multiple_of or 1
        both = (value // step * step, (value // step + 1) * step)
        near = [each for each in both if (self.min or 0) <= each <= (self.max or each)]
        return f": give {' or '.join(map(str, near))}" if near else ""

    def _switch(self, given: Any) -> bool:
        if not isinstance(given, bool):
            raise UnusableError(f"expected true or false, not {_kind(given)}")
        return given

    def _choice(self, given: Any) -> Any:
        if not isinstance(given, str) or given not in self.choices:
            raise UnusableError(f"{shown(given, 40)} is not one of {', '.join(self.choices)}")
        return self.choices[given]


@dataclass(frozen=True)
class Values:
    """What a request says, checked: by input, the workflow's value, and the files that are among them."""

    given: Mapping[str, Any]
    files: Mapping[str, Named]
    drawn: Mapping[str, int]


def read(
    inputs: Mapping[str, Input], given: Mapping[str, Any], folders: Sequence[Path]
) -> tuple[Values, list[str]]:
    """Read what a request says of the inputs; returns it, and a sentence for each field that is wrong."""
    values: dict[str, Any] = {}
    files: dict[str, Named] = {}
    drawn: dict[str, int] = {}
    wrong = []
    replaced = {
        other: each.name
        for each in inputs.values()
        for other in each.instead_of
        if given.get(each.name) is not None
    }
    for name, each in inputs.items():
        value = given.get(name)
        if value is None:
            if each.required and name not in replaced:
                wrong.append(f"{name}: it is missing{_ways_round(each, inputs)}.")
            elif each.random:
                values[name] = drawn[name] = each.drawn()
            elif each.default is not None and each.type not in MEDIA:
                values[name] = each.choices.get(each.default, each.default) if each.choices else each.default
            continue
        if name in replaced:
            wrong.append(f"{name}: {replaced[name]} takes its place: give one of them.")
            continue
        try:
            read_value = each.read(value, folders)
        except UnusableError as error:
            wrong.append(f"{name}: {error}.")
            continue
        if each.type in MEDIA:
            files[name] = read_value
            values[name] = read_value.name
        else:
            values[name] = read_value
        if each.random:
            drawn[name] = read_value
    return Values(values, files, drawn), wrong


def _ways_round(missing: Input, inputs: Mapping[str, Input]) -> str:
    others = [each.name for each in inputs.values() if missing.name in each.instead_of and not each.unmet]
    also = f", and so is {' and '.join(others)}: one of them is needed" if others else ""
    return f"{also} ({missing.description})" if missing.description else also


def _kind(value: Any) -> str:
    """Name a value of JSON for a sentence."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return shown(value, 30)
    kinds = {"str": "a text", "list": "a list", "dict": "an object"}
    return kinds.get(type(value).__name__, "something else")


def _span(least: float | None, most: float | None) -> str:
    if least is None:
        return f"at most {most}"
    return f"at least {least}" if most is None else f"from {least} to {most}"
