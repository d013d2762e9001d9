"""A model's card: the front matter of its README.md, as far as it tells what a model is.

Hugging Face's API gives it read (cardData); of a folder here its few keys are read from the text, for the
standard library has no YAML. What is written in another way than a plain scalar or list is not seen.
"""

from __future__ import annotations

import re

from server.detection.facts import Card

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_MOST = 20
_KEY = re.compile(r"(?P<key>[a-z_]+):[ \t]*(?P<value>.*)")
_ITEM = re.compile(r"\s*-\s+(?P<value>.+)")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
LONGEST = 64 << 10
"""Characters of a README that are looked at."""


def of_data(data: Mapping[str, Any]) -> Card:
    """Return a card from its keys, whatever these hold."""
    bases = [each for each in _list(data.get("base_model")) if _REPOSITORY.fullmatch(each)]
    return Card(
        tuple(bases),
        relation=_text(data.get("base_model_relation")),
        library=_text(data.get("library_name")),
        task=_text(data.get("pipeline_tag")),
        tags=tuple(_list(data.get("tags"))),
        licence=_licence(data),
    )


def of_text(readme: str) -> Card | None:
    """Return the card in a README's front matter; None where it has none."""
    head, _, rest = readme[:LONGEST].partition("\n")
    if head.strip() != "---":
        return None
    data: dict[str, Any] = {}
    key = ""
    for line in rest.partition("\n---")[0].splitlines():
        if found := _KEY.fullmatch(line.rstrip()):
            key = found["key"]
            value = _bare(found["value"])
            data[key] = [_bare(each) for each in value[1:-1].split(",")] if value.startswith("[") else value
        elif (item := _ITEM.fullmatch(line)) and key:
            known = data.get(key)
            data[key] = [*(known if isinstance(known, list) else []), _bare(item["value"])]
    return of_data(data)


def _bare(value: str) -> str:
    value = re.sub(r"\s+#.*", "", value).strip()
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def _list(value: Any) -> list[str]:
    found = value if isinstance(value, list) else [value]
    return [each for each in found if isinstance(each, str) and each][:_MOST]


def _licence(data: Mapping[str, Any]) -> str:
    """Return the licence's id, or where that is `other` its name; "" where none is told."""
    said = _text(data.get("license"))
    return (_text(data.get("license_name")) or said) if said == "other" else said


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
