"""Expressions of a pipeline's code, as far as their value follows from what is known."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_CALLS: dict[str, Callable[..., Any]] = {"int": int, "float": float, "round": round, "min": min, "max": max}
_TYPES = {"int": int, "str": str, "list": list, "tuple": tuple, "float": float}
_LARGEST = 1 << 40
_GREATEST_POWER = 64  # no numbers of a million digits


class UnknownError(Exception):
    """What the value is cannot be told."""


class Lazy(Mapping[str, Any]):
    """Variables of a function by what they are first set to, evaluated when they are asked for."""

    def __init__(self, nodes: Mapping[str, ast.expr], values: Mapping[str, Any]) -> None:
        self._nodes, self._values = nodes, values
        self._asked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        if name in self._asked or name not in self._nodes:
            raise KeyError(name)
        self._asked.add(name)  # a variable that is made of itself has no value here
        try:
            return value(self._nodes[name], self, self._values)
        except UnknownError as error:
            raise KeyError(name) from error
        finally:
            self._asked.discard(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def value(node: ast.expr, known: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Return an expression's value. Raises UnknownError.

    `known` are variables, `values` attributes of the pipeline by dotted name, without `self.`.
    """
    try:
        found = _value(node, known, values)
    except UnknownError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, ArithmeticError) as error:
        raise UnknownError(ast.unparse(node)) from error
    if isinstance(found, int | float) and abs(found) > _LARGEST:
        raise UnknownError(ast.unparse(node))
    return found


def _value(node: ast.expr, known: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=constant):
            return constant
        case ast.Name(id=name):
            return known[name]
        case ast.Attribute():
            return values[ast.unparse(node).removeprefix("self.")]
        case ast.Tuple(elts=parts):
            return tuple(value(part, known, values) for part in parts)
        case ast.Subscript(value=whole, slice=ast.expr() as at):
            return value(whole, known, values)[value(at, known, values)]
        case _:
            return _compound(node, known, values)


def _compound(node: ast.expr, known: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    match node:
        case ast.IfExp(test=test, body=yes, orelse=no):
            found = value(yes if value(test, known, values) else no, known, values)
        case ast.UnaryOp(op=ast.Not() | ast.USub() as op, operand=operand):
            found = value(operand, known, values)
            found = not found if isinstance(op, ast.Not) else -found
        case ast.BinOp(left=left, op=op, right=right):
            pair = value(left, known, values), value(right, known, values)
            if isinstance(op, ast.Pow) and abs(pair[1]) > _GREATEST_POWER:
                raise UnknownError(ast.unparse(node))
            found = _ARITHMETIC[type(op)](*pair)
        case ast.BoolOp(op=op, values=parts):
            found = _logic(parts, isinstance(op, ast.Or), known, values)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            found = _COMPARISONS[type(op)](value(left, known, values), value(right, known, values))
        case ast.Call(func=ast.Name(id=name)):
            found = _call(name, node, known, values)
        case _:
            raise UnknownError(ast.unparse(node))
    return found


def _logic(parts: list[ast.expr], stop: bool, known: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Return the first value whose truth is `stop`, else the last, as `or` and `and` do."""
    found = value(parts[0], known, values)
    for part in parts[1:]:
        if bool(found) is stop:
            break
        found = value(part, known, values)
    return found


def _call(name: str, node: ast.Call, known: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    match node.args:
        case [one, ast.Name(id=kind)] if name == "isinstance":
            return isinstance(value(one, known, values), _TYPES[kind])
        case args if name in _CALLS and not node.keywords:
            return _CALLS[name](*(value(arg, known, values) for arg in args))
    raise UnknownError(ast.unparse(node))
