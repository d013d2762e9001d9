"""What a pipeline's code says of its parameters: defaults that it makes itself, multiples, bounds.

The code is parsed and never run. `defaults` follows the straight way through __call__ as far as its values
are known (`height = height or self.default_sample_size * self.vae_scale_factor`), `rules` looks for the
checks that all classes write in the same way: `if height % 8 != 0`, `num_frames % 4 != 1`,
`max_sequence_length > 512`.
"""

from __future__ import annotations

import ast
import math
import textwrap
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from server.schema import expressions
from server.schema.expressions import UnknownError, value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SIDES = {"height", "width"}
_FRAMES = {"num_frames", "video_length", "frames"}


@dataclass
class Rules:
    """Bounds by parameter: `multiples` are (multiple, offset)."""

    multiples: dict[str, tuple[int, int]] = field(default_factory=dict)
    minima: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)


@lru_cache(maxsize=4)
def functions(source: str) -> dict[str, ast.FunctionDef]:
    """Return the methods of classes in a source, by name; of the same name the first."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except (SyntaxError, ValueError):
        return {}
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, node)
    return found


def names(source: str) -> set[str]:
    """Return the attributes of the pipeline that its code asks for, such as `unet.config.sample_size`."""
    found = set()
    for function in functions(source).values():
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute):
                dotted = ast.unparse(node)
                if dotted.startswith("self.") and dotted.replace(".", "").isidentifier():
                    found.add(dotted.removeprefix("self."))
    return found


def defaults(source: str, given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what __call__ makes of parameters whose default is None (`given`: all defaults)."""
    call = functions(source).get("__call__")
    found: dict[str, Any] = {}
    if call is None:
        return found
    known: dict[str, Any] = dict(given)
    for _ in _steps(call.body, known, values):
        for name, default in given.items():
            if default is None and name not in found and known.get(name) is not None:
                found[name] = known[name]
    return found


def _steps(body: list[ast.stmt], known: dict[str, Any], values: Mapping[str, Any]) -> Iterator[None]:
    """Follow statements; `known` holds what is known after each. What is not known any more is left out."""
    for node in body:
        if isinstance(node, ast.Assign):
            _assign(node, known, values)
        elif isinstance(node, ast.If):
            try:
                branch = node.body if value(node.test, known, values) else node.orelse
            except UnknownError:
                _forget(node, known)
            else:
                yield from _steps(branch, known, values)
        else:
            _forget(node, known)
        yield


def _assign(node: ast.Assign, known: dict[str, Any], values: Mapping[str, Any]) -> None:
    (target, *_) = node.targets
    try:
        result = value(node.value, known, values)
    except UnknownError:
        _forget(node, known)
        return
    targets, results = [target], [result]
    if isinstance(target, ast.Tuple):
        targets, results = target.elts, list(result) if isinstance(result, tuple) else []
    for one, each in zip(targets, results, strict=False):
        if isinstance(one, ast.Name):
            known[one.id] = each


def _forget(node: ast.stmt, known: dict[str, Any]) -> None:
    for each in ast.walk(node):
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            known.pop(each.id, None)


def rules(source: str, values: Mapping[str, Any]) -> Rules:
    """Return the bounds that a pipeline checks, or to which it rounds."""
    found = Rules()
    for function in functions(source).values():
        known: dict[str, Any] = {}
        nodes = list(ast.walk(function))
        for node in nodes:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                known.setdefault(node.targets[0].id, node.value)
        local = expressions.Lazy(known, values)
        for node in nodes:
            if isinstance(node, ast.Compare | ast.BinOp):
                _multiple(node, local, values, found)
            elif isinstance(node, ast.If) and any(isinstance(each, ast.Raise) for each in node.body):
                _bound(node.test, local, values, found)
    return found


def _multiple(node: ast.expr, known: Mapping[str, Any], values: Mapping[str, Any], found: Rules) -> None:
    """Note `side % N != 0`, `side // N * N`, `frames % N != 1` and `(frames - 1) // N`."""
    match node:
        case ast.Compare(
            left=ast.BinOp(left=ast.Name(id=name), op=ast.Mod(), right=step),
            ops=[ast.NotEq()],
            comparators=[ast.Constant(value=int(rest))],
        ) if (rest == 0 and name in _SIDES) or (rest == 1 and name in _FRAMES):
            offset = rest
        case ast.BinOp(
            left=ast.BinOp(left=ast.Name(id=name), op=ast.FloorDiv(), right=step), op=ast.Mult(), right=again
        ) if name in _SIDES and ast.dump(step) == ast.dump(again):
            offset = 0
        case ast.BinOp(
            left=ast.BinOp(left=ast.Name(id=name), op=ast.Sub(), right=ast.Constant(value=1)),
            op=ast.FloorDiv() | ast.Mod(),
            right=step,
        ) if name in _FRAMES:
            offset = 1
        case _:
            return
    try:
        number = value(step, known, values)
    except UnknownError:
        return
    if isinstance(number, int) and number > 1:
        before = found.multiples.get(name, (1, offset))[0]
        found.multiples[name] = (math.lcm(before, number), offset)


def _bound(test: ast.expr, known: Mapping[str, Any], values: Mapping[str, Any], found: Rules) -> None:
    """Note `name < N` and `name > N` where nothing but them decides whether an error is raised."""
    match test:
        case ast.BoolOp(op=ast.Or(), values=parts):
            for part in parts:
                _bound(part, known, values, found)
        case ast.BoolOp(op=ast.And(), values=[ast.Compare(ops=[ast.IsNot()]), part]):
            _bound(part, known, values, found)
        case ast.Compare(left=ast.Name(id=name), ops=[operator], comparators=[limit]):
            try:
                number = value(limit, known, values)
            except UnknownError:
                return
            if isinstance(number, bool) or not isinstance(number, int | float):
                return
            if isinstance(operator, ast.Gt):
                found.maxima.setdefault(name, number)
            elif isinstance(operator, ast.Lt):
                found.minima.setdefault(name, number)
