"""One YAML file read strictly: every error with file, line and key.

Facts are YAML, their shapes are pydantic models (strict, unknown keys forbidden). Pydantic knows where in the
data an error lies but not where in the file; this module keeps the node tree and puts the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from podkiln.config import messages, yaml_nodes
from podkiln.errors import DescriptionError
from podkiln.util.quoting import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T", bound=BaseModel)
V = TypeVar("V")
Location = tuple[str | int, ...]
ROOT = Path(__file__).resolve().parents[2]
"""The checkout that podkiln runs from."""

# A YAML list read into a tuple: values stay hashable and frozen. Strictness goes on inside of it.
TupleOf = Annotated[tuple[V, ...], Field(strict=False)]


class StrictModel(BaseModel):
    """Base of everything that is described in YAML: frozen, no coercion, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


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
        find: Callable[[Location], tuple[Document, Location]] | None = None,
        at: Location = (),
    ) -> T:
        """Validate the data against a shape. Raises DescriptionError for the first thing that is wrong.

        Args:
            shape: The pydantic model.
            data: What to validate instead of the file's own data (a merge of several files).
            find: Finds the file that an error is blamed on, and the place in it; by default this one.
            at: The key that the data stands under.
        """
        data = self.data if data is None else data
        try:
            return shape.model_validate(data)
        except ValidationError as invalid:
            error, location = _first(data, invalid)
            file, place = find(location) if find else (self, (*at, *location))
            raise file.error(place, messages.sentence(error, shape, location)) from None


def files(folder: Path) -> list[Path]:
    """Return the YAML files of a folder of descriptions, in alphabetical order.

    Raises DescriptionError for one whose suffix is spelled otherwise: it would be passed over in silence.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".yaml", ".yml"})
    for path in found:
        if path.suffix != ".yaml":
            raise DescriptionError(f"{path}:1: the name of a description ends in .yaml: rename the file.")
    return found


def load(path: Path, text: str | None = None) -> Document:
    """Read one YAML file whose top level is a mapping. Raises DescriptionError.

    Args:
        path: The file.
        text: What it will hold, where it is not written yet.
    """
    root = yaml_nodes.parse(path, text)
    return Document(path=path, data=yaml_nodes.construct(root), root=root)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Put the data of one description over that of another: mappings key by key, all else whole."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _first(data: dict[str, Any], invalid: ValidationError) -> tuple[Any, Location]:
    """Return the first error and its place; of a union's errors, the one that got furthest into the data."""
    errors = invalid.errors(include_url=False)
    placed = [(error, _place(data, error["loc"], error["type"])) for error in errors]
    start = placed[0][1]
    if placed[0][0]["type"] == "missing":  # a misspelt key is both missing and unknown; say the latter
        unknown = (each for each in placed if each[0]["type"] == "extra_forbidden")
        return next((each for each in unknown if each[1][:-1] == start[:-1]), placed[0])
    deepest = max(placed, key=lambda each: len(each[1]) if each[1][: len(start)] == start else -1)
    return deepest if len(deepest[1]) > len(start) else placed[0]


def _child(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


def _place(data: Any, location: Location, kind: str) -> Location:
    """Keep the keys and indices of pydantic's location: it also names the members of unions it tried."""
    place: list[str | int] = []
    for step in location:
        inside = isinstance(data, dict) and step in data
        if inside or (isinstance(data, list) and isinstance(step, int) and step < len(data)):
            data = data[step]
            place.append(step)
    return (*place, location[-1]) if kind == "missing" else tuple(place)


def _dotted(location: Sequence[str | int]) -> str:
    parts = [f"[{step}]" if isinstance(step, int) else f".{cut(step)}" for step in location]
    return "".join(parts).lstrip(".")
