"""Which code of a module runs when it is imported, and which names it binds: read off its syntax tree."""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
# What writes names or code that no syntax tree shows.
HIDDEN: Final = frozenset({"exec", "eval", "compile", "globals", "locals", "__import__", "__builtins__"})


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that are evaluated when a module is imported: all but the bodies of functions."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):  # a lambda may be called at once
            waiting += [node.args, *node.decorator_list]
        else:
            waiting += ast.iter_child_nodes(node)


def parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    """Return the node that each node stands in."""
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def bound(tree: ast.AST) -> Counter[str]:
    """Return how often a module binds each of its names, or has a function that may."""
    found: Counter[str] = Counter()
    for node in at_import(tree):
        found.update(_binds(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            found.update(node.names)
    return found


def _binds(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [node.id]
    if isinstance(node, Definition):
        return [node.name]
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
        return [node.name] if node.name else []
    if isinstance(node, ast.MatchMapping):
        return [node.rest] if node.rest else []
    return []


def takes(function: Function, name: str) -> bool:
    """Return whether a name is an argument of a function, and so another thing inside of it."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return any(each.arg == name for each in named if each)
