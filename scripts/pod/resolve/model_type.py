"""What kind of model a .safetensors file holds, from the names of its tensors, and where that belongs.

The kinds, the names by which they are told and their order are data: variants/flags/model-types.yaml, which
is model-types.json in the image.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from pod.util.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pod.resolve.safetensors_header import SafetensorsHeader


@dataclass(frozen=True)
class ModelType:
    """A kind of model: what it is called, and its folder; None where ComfyUI itself has none.

    Then `node` loads it, from `beside`. `taken_for` are the kinds that CivitAI may call it without being
    wrong; `vague` ones are not believed on CivitAI's word alone.
    """

    id: str
    what: str
    folder: str | None
    node: str | None = None
    beside: str | None = None
    taken_for: frozenset[str] = frozenset()
    vague: bool = False

    @property
    def homeless(self) -> str:
        """Say that ComfyUI has no folder for it, and which node has one; a clause after a file's name."""
        elsewhere = f" ({self.node} reads models/{self.beside})" if self.node and self.beside else ""
        return f"is {self.what}, for which ComfyUI itself has no folder{elsewhere}"

    def agrees_with(self, claimed: ModelType) -> bool:
        """Tell whether what a file is may be called so on CivitAI."""
        return claimed.id == self.id or claimed.id in self.taken_for


class Types:
    """All kinds, and how they are told."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        """Read model-types.json. Raises KeyError, TypeError, AttributeError."""
        self.kinds: dict[str, ModelType] = {row["id"]: _kind(row) for row in data["types"]}
        self._civitai = {name: self.kinds[row["id"]] for row in data["types"] for name in row["civitai"]}
        self._air = {name: self.kinds[row["id"]] for row in data["types"] for name in row["air"]}
        self._no_models = frozenset(data["no_models"])
        self._prefix = data["prefix"]
        self._beside = data["beside"]
        self._rows: Sequence[Mapping[str, Any]] = data["rules"]

    def claimed(self, types: Iterable[str]) -> ModelType | None:
        """Return the kind that CivitAI's types claim, that of the file before that of its model."""
        names = (name.lower() for name in types)
        return next((self._civitai[name] for name in names if name in self._civitai), None)

    def is_no_model(self, type_: str) -> bool:
        """Tell whether this is a type of CivitAI that is not a model."""
        return type_.lower() in self._no_models

    def by_air(self, type_: str | None) -> ModelType | None:
        """Return the kind that an AIR claims."""
        return self._air.get(type_ or "")

    def of(self, header: SafetensorsHeader) -> ModelType | None:
        """Return what a file is; None where its tensors do not say, or say two things at once."""
        names = [name.replace("\n", " ") for name in header.tensors]
        text = "\n".join(names)
        core = "\n".join(name for name in names if not self._of_beside.fullmatch(name))
        return next((rule.kind for rule in self._rules if rule.fits(names, text, core, header)), None)

    @functools.cached_property
    def _of_beside(self) -> re.Pattern[str]:
        return re.compile(self._beside)

    @functools.cached_property
    def _rules(self) -> list[_Rule]:
        """Compile them when the first file is looked into: most starts look into none."""
        return [
            _Rule(self.kinds[row["type"]], row, self._prefix if row["prefix"] else "") for row in self._rows
        ]


class _Rule:
    """One row of `rules`: all conditions that it has must hold."""

    def __init__(self, kind: ModelType, row: Mapping[str, Any], prefix: str) -> None:
        self.kind = kind
        self._only = frozenset(row["only"])
        self._most, self._any, self._with, self._without = (
            _lines(row[key], prefix if key == "any" else "") for key in ("most", "any", "with", "without")
        )
        self._metadata = [each.partition("=") for each in row["metadata"]]

    def fits(self, names: Sequence[str], text: str, core: str, header: SafetensorsHeader) -> bool:
        """Tell whether a file is of this kind; `core` is the text without what only stands beside tensors."""
        if self._only:
            return bool(names) and self._only.issuperset(names)
        if self._most and len(self._most.findall(core)) * 2 <= core.count("\n") + 1:
            return False
        if self._any and not self._any.search(text):
            return False
        if self._with and not self._with.search(text):
            return False
        if self._without and self._without.search(text):
            return False
        return not self._metadata or any(
            key in header.metadata and (not sign or re.fullmatch(value, header.metadata[key]))
            for key, sign, value in self._metadata
        )


def _kind(row: Mapping[str, Any]) -> ModelType:
    return ModelType(
        row["id"],
        row["what"],
        row["folder"],
        row["node"],
        row["beside"],
        frozenset(row["taken_for"]),
        row["vague"],
    )


def _lines(patterns: Sequence[str], prefix: str) -> re.Pattern[str] | None:
    return re.compile(rf"^{prefix}(?:{'|'.join(patterns)})$", re.MULTILINE) if patterns else None
