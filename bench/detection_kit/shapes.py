"""Names and shapes of tensors, and how headers.json writes them in few lines."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

Shapes = dict[str, tuple[int, ...]]
Maker = Callable[[Any], Shapes]
"""Makes the tensors of a file, given torch."""


def of_state(state: Mapping[str, Any]) -> Shapes:
    """Return names and shapes of a state."""
    return {name: tuple(value.shape) for name, value in state.items()}


def compact(found: Shapes) -> dict[str, Any]:
    """Put tensors whose names differ in numbers alone into one line: `blocks.{0-39}.x`."""
    groups: dict[tuple[str, tuple[int, ...]], list[tuple[int, ...]]] = defaultdict(list)
    for name, shape in found.items():
        numbers = tuple(int(each) for each in re.findall(r"\d+", name))
        groups[re.sub(r"\d+", "{}", name), shape].append(numbers)
    lines = {}
    for (template, shape), at in groups.items():
        spans = [(min(each), max(each)) for each in zip(*at, strict=True)]
        whole = set(product(*(range(low, high + 1) for low, high in spans)))
        several = [at] if whole == set(at) else [[each] for each in at]
        for group in several:
            spans = [(min(each), max(each)) for each in zip(*group, strict=True)]
            words = [str(low) if low == high else f"{{{low}-{high}}}" for low, high in spans]
            lines[template.format(*words)] = list(shape)
    return lines


def shorter(name: str, made: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a head as what differs from an earlier one, where that is little."""
    mine = made[name]
    for other, theirs in made.items():
        if other == name:
            break
        more = {key: shape for key, shape in mine.items() if theirs.get(key) != shape}
        lacking = [key for key in theirs if key not in mine]
        if len(more) + len(lacking) < len(mine) // 2:
            return {"like": other, "without": lacking, "tensors": more}
    return {"tensors": mine}
