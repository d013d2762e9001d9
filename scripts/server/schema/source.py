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
    from collections.abc import Mapping

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
            parts: list[str] = []
            at: ast.expr | ast.AST = node
            while isinstance(at, ast.Attribute):
                parts.append(at.attr)
                at = at.value
            if parts and isinstance(at, ast.Name) and at.id == "self":
                found.add(".".join(reversed(parts)))
    return found


def defaults(source: str, given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what __call__ makes of parameters whose default is None (`given`: all defaults).

    What follows from another parameter is no default: it changes with that one.
    """
    call = functions(source).get("__call__")
    way, found = _Way(given, values), {}
    for node in call.body if call else ():
        way.follow([node])
        for name, default in given.items():  # after a whole statement: height is first set, and then scaled
            made = way.known.get(name)
            if default is None and made is not None and name not in found and name not in way.following:
                found[name] = made
    return found


class _Way:
    """The straight way through a function, as far as it can be seen.

    Attributes:
        known: Variables whose value is known after the statements so far.
        following: Those that follow from a parameter.
    """

    def __init__(self, given: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        self._given, self._values = given, values
        self.known = dict(given)
        self.following: set[str] = set()

    def follow(self, body: list[ast.stmt]) -> None:
        """Follow statements."""
        for node in body:
            if isinstance(node, ast.Assign):
                self._assign(node)
            elif isinstance(node, ast.If):
                try:
                    branch = node.body if value(node.test, self.known, self._values) else node.orelse
                except UnknownError:
                    self._forget(node)
                else:
                    self.follow(branch)
            else:
                self._forget(node)

    def _assign(self, node: ast.Assign) -> None:
        (target, *_) = node.targets
        try:
            result = value(node.value, self.known, self._values)
        except UnknownError:
            self._forget(node)
            return
        targets, results = [target], [result]
        if isinstance(target, ast.Tuple):
            targets, results = target.elts, list(result) if isinstance(result, tuple) else []
        names = {each.id for each in targets if isinstance(each, ast.Name)}
        read = {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)} - names
        if read & (self.following | self._given.keys()):
            self.following |= names
        for one, each in zip(targets, results, strict=False):
            if isinstance(one, ast.Name):
                self.known[one.id] = each

    def _forget(self, node: ast.stmt) -> None:
        for each in ast.walk(node):
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                self.known.pop(each.id, None)


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
