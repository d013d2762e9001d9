"""YAML read strictly: duplicate keys refused, and every error with file, line and key.

Facts are YAML, their shapes are pydantic models (strict, unknown keys forbidden). Pydantic knows where in the
data an error lies but not where in the file; this module keeps the node tree and puts the two together.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T", bound=BaseModel)
V = TypeVar("V")
Location = tuple[str | int, ...]

# A YAML list read into a tuple: values stay hashable and frozen. Strictness goes on inside of it.
Many = Annotated[tuple[V, ...], Field(strict=False)]


class Strict(BaseModel):
    """Base of everything that is described in YAML: frozen, no coercion, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates and octals by surprise: YAML's own types, less the traps."""


# A revision of 40 digits or a version such as 2026-08-24 must stay the text that was written.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True)
class Document:
    """One YAML file: its data, and the node tree that knows the line of each key."""

    path: Path
    data: dict[str, Any]
    root: yaml.MappingNode

    def line(self, location: Sequence[str | int]) -> int:
        """Return the line (from 1) of a key path; of its nearest parent where the key is missing."""
        node: yaml.Node = self.root
        line = node.start_mark.line
        for step in location:
            found = _child(node, step)
            if found is None:
                break
            key, node = found
            line = key.start_mark.line
        return line + 1

    def has(self, location: Sequence[str | int]) -> bool:
        """Return whether the file writes this key path itself."""
        node: yaml.Node = self.root
        for step in location:
            found = _child(node, step)
            if found is None:
                return False
            node = found[1]
        return True

    def error(self, location: Sequence[str | int], what: str, *, hint: str | None = None) -> DescriptionError:
        """Make the one-sentence error for a place in this file."""
        key = _dotted(location)
        where = f"{self.path}:{self.line(location)}"
        return DescriptionError(f"{where}: {key}: {what}" if key else f"{where}: {what}", hint=hint)

    def parse(
        self,
        shape: type[T],
        data: dict[str, Any] | None = None,
        *,
        owner: Callable[[Location], Document] | None = None,
    ) -> T:
        """Validate the data against a shape. Raises DescriptionError for the first thing that is wrong.

        Args:
            shape: The pydantic model.
            data: What to validate instead of the file's own data (a merge of several files).
            owner: Finds the file that an error is blamed on; this one by default.
        """
        data = self.data if data is None else data
        try:
            return shape.model_validate(data)
        except ValidationError as invalid:
            first = invalid.errors(include_url=False)[0]
            location = _place(data, first["loc"])
            file = owner(location) if owner else self
            raise file.error(location, _sentence(first, shape)) from None


def load(path: Path) -> Document:
    """Read one YAML file whose top level is a mapping. Raises DescriptionError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DescriptionError(f"{path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as unreadable:
        raise DescriptionError(f"{path}: cannot be read as UTF-8 text: {unreadable}.") from None
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark or broken.context_mark
        line = mark.line + 1 if mark else 1
        raise DescriptionError(f"{path}:{line}: not valid YAML: {broken.problem}.") from None
    except yaml.YAMLError as broken:
        raise DescriptionError(f"{path}: not valid YAML: {broken}.") from None
    if not isinstance(root, yaml.MappingNode):
        raise DescriptionError(f"{path}:1: the top level must be a mapping of keys.")
    _refuse_duplicates(path, root, seen=set())
    loader = _Loader("")
    try:
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as broken:
        line = broken.problem_mark.line + 1 if broken.problem_mark else 1
        raise DescriptionError(f"{path}:{line}: {broken.problem}.") from None
    return Document(path=path, data=data, root=root)


def _refuse_duplicates(path: Path, node: yaml.Node, *, seen: set[int]) -> None:
    """YAML lets a later key win silently; a description where one key means two things is a mistake."""
    if id(node) in seen:
        raise DescriptionError(f"{path}:{node.start_mark.line + 1}: an alias that contains itself.")
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise DescriptionError(f"{path}:{key.start_mark.line + 1}: a key must be plain text.")
            if key.value in keys:
                line = key.start_mark.line + 1
                raise DescriptionError(f"{path}:{line}: {key.value}: the key stands twice.")
            keys.add(key.value)
            _refuse_duplicates(path, value, seen=seen | {id(node)})
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_duplicates(path, value, seen=seen | {id(node)})


def _child(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


def _place(data: Any, location: Location) -> Location:
    """Keep the keys and indices of pydantic's location: it also names the members of unions it tried."""
    place: list[str | int] = []
    for number, step in enumerate(location):
        inside = isinstance(data, dict) and step in data
        if inside or (isinstance(data, list) and isinstance(step, int) and step < len(data)):
            data = data[step]
        elif number < len(location) - 1 or not isinstance(data, dict):
            continue
        place.append(step)
    return tuple(place)


def _dotted(location: Sequence[str | int]) -> str:
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in location]
    return "".join(parts).lstrip(".")


def _sentence(error: Any, shape: type[BaseModel]) -> str:
    kind = error["type"]
    if kind == "extra_forbidden":
        name = str(error["loc"][-1])
        near = difflib.get_close_matches(name, _field_names(shape), n=1)
        return "unknown key." + (f" Did you mean {near[0]!r}?" if near else "")
    if kind == "missing":
        return "this key is missing."
    message = str(error["msg"]).removeprefix("Value error, ").rstrip(".")
    given = error.get("input")
    if kind == "value_error" or isinstance(given, dict | list):
        return f"{message}."
    return f"{message} (it is {given!r})."


def _field_names(shape: type[BaseModel], seen: frozenset[type[BaseModel]] = frozenset()) -> list[str]:
    """Return all keys of a shape and of the shapes in it: what a misspelt key could have meant."""
    names: list[str] = []
    for name, field in shape.model_fields.items():
        names.append(field.alias or name)
        for inner in _models_in(field.annotation):
            if inner not in seen and inner is not shape:
                names += _field_names(inner, seen | {shape})
    return names


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _models_in(part)]
