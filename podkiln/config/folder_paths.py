"""ComfyUI's model folders, read off folder_paths.py: the assignments as they stand there, none of it run."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from podkiln.config.source_syntax import Module, UnknownValueError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE: Final = "folder_paths.py"
_TABLE: Final = "folder_names_and_paths"
_MODELS: Final = "models_dir"
_BASE: Final = "base_path"
_LEGACY: Final = "map_legacy"


@dataclass(frozen=True)
class ReadFolders:
    """The folders of a release, in its order.

    Attributes:
        folders: Keys of folders below models/.
        outside: Keys of folders beside models/.
        legacy: Old names, as keys or as directories below models/, and the key that each belongs to.
    """

    folders: tuple[str, ...]
    outside: tuple[str, ...]
    legacy: dict[str, str]


def read(tree: Path) -> ReadFolders:
    """Return the folders of a source tree.

    Raises SourceError: there is no such file, or it is no Python. Raises DescriptionError: it has a construct
    that is not understood.
    """
    module = Module.read(tree / FILE)
    places: dict[str, tuple[list[str], list[str]]] = {}
    known: dict[str, str] = {}
    for statement in module.tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == _LEGACY:
            known = _legacy(module, statement)
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for target, value in _entries(statement):
                _add(module, statement, target, value, places)
    inside = {key: below for key, (below, _) in places.items() if below}
    if not inside:
        raise module.error(module.tree, f"there is no `{_TABLE}[NAME] = …` here")
    for key, below in inside.items():
        known |= {name: key for name in below if name not in {key, *known, *places}}
    return ReadFolders(tuple(inside), tuple(key for key in places if key not in inside), known)


def _add(
    module: Module,
    statement: ast.stmt,
    target: ast.Subscript,
    value: ast.expr,
    places: dict[str, tuple[list[str], list[str]]],
) -> None:
    """Take in the directories of one key."""
    if not _is_entry(statement, target):
        raise module.error(target, "a model folder is set in a way that podkiln cannot read")
    key = _key(module, target)
    below, beside = _places(module, key, value)
    if below and beside:
        raise module.error(value, f"{key} has folders below models/ and beside it")
    if key in places:
        raise module.error(target, f"the folder {key} is set twice")
    places[key] = below, beside


def _entries(statement: ast.stmt) -> Iterator[tuple[ast.Subscript, ast.expr]]:
    """Yield what a statement writes into the table, wherever in it that stands."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Subscript) and _named(target.value, _TABLE):
                    yield target, node.value


def _is_entry(statement: ast.stmt, target: ast.Subscript) -> bool:
    return isinstance(statement, ast.Assign) and statement.targets == [target]


def _key(module: Module, target: ast.Subscript) -> str:
    if isinstance(target.slice, ast.Constant) and isinstance(target.slice.value, str):
        return target.slice.value
    raise module.error(target, "the name of this model folder is no plain text")


def _places(module: Module, key: str, value: ast.expr) -> tuple[list[str], list[str]]:
    """Return the directories of a key: those below models/, and those beside it."""
    below: list[str] = []
    beside: list[str] = []
    first = value.elts[0] if isinstance(value, ast.Tuple) and value.elts else None
    if not isinstance(first, ast.List):
        raise module.error(value, f"podkiln cannot read the directories of {key}")
    for each in first.elts:
        if not isinstance(each, ast.Call) or not _joins(each) or not each.args:
            raise module.error(each, f"podkiln cannot read the directories of {key}")
        try:
            parts = [module.value(part) for part in each.args[1:]]
        except UnknownValueError:
            parts = []
        roots = [root for root in (_MODELS, _BASE) if _named(each.args[0], root)]
        if not roots or not parts or not all(isinstance(part, str) for part in parts):
            raise module.error(each, f"podkiln cannot read the directories of {key}")
        (below if roots[0] == _MODELS else beside).append("/".join(parts))
    return below, beside


def _joins(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "join" and not call.keywords


def _named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _legacy(module: Module, function: ast.FunctionDef) -> dict[str, str]:
    """Return the one table of constant texts that the function looks its argument up in."""
    tables = [node for node in ast.walk(function) if isinstance(node, ast.Dict)]
    if len(tables) == 1:
        try:
            keys = [module.value(key) for key in tables[0].keys if key is not None]
            values = [module.value(value) for value in tables[0].values]
        except UnknownValueError:
            keys = values = []
        if keys and all(isinstance(each, str) for each in (*keys, *values)):
            return dict(zip(keys, values, strict=True))
    raise module.error(function, f"podkiln cannot read the old names of {_LEGACY}")
