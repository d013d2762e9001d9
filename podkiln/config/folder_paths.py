"""ComfyUI's model folders, read off folder_paths.py: the assignments as they stand there, none of it run."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from podkiln.config import source_names
from podkiln.config.fields import IDENTIFIER
from podkiln.config.source_syntax import Module, UnknownValueError
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE: Final = "folder_paths.py"
_TABLE: Final = "folder_names_and_paths"
_MODELS: Final = "models_dir"
_BASE: Final = "base_path"
_LEGACY: Final = "map_legacy"
_NAME: Final = re.compile(IDENTIFIER)
# Of folders in each other each has a name, and none begins with a dot: it would lead elsewhere.
_DIRECTORY: Final = re.compile(r"\w[\w.-]{0,63}(/\w[\w.-]{0,63}){0,7}")


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
    where: ast.AST = module.tree
    understood: set[ast.AST] = set()
    for statement in module.tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == _LEGACY:
            known = _legacy(module, statement)
            understood.add(where := statement)
        elif (table := _table(statement)) is not None and not places:
            understood.add(table)
        elif isinstance(statement, ast.Assign):
            for target, value in _entries(statement):
                _add(module, statement, target, value, places)
                understood.add(target.value)
    _refuse_what_is_left(module, understood)
    inside = {key: below for key, (below, _) in places.items() if below}
    if not inside:
        raise module.error(module.tree, f"there is no `{_TABLE}[NAME] = …` here")
    _check_names(module, where, places, known)
    for key, below in inside.items():
        known |= {name: key for name in below if name not in {key, *known, *places}}
    return ReadFolders(tuple(inside), tuple(key for key in places if key not in inside), known)


def _table(statement: ast.stmt) -> ast.Name | None:
    """Return the table's name where a statement makes it, empty."""
    if not isinstance(statement, ast.AnnAssign | ast.Assign):
        return None
    targets: list[ast.expr] = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    target = targets[0] if len(targets) == 1 else None
    empty = isinstance(statement.value, ast.Dict) and not statement.value.keys
    return target if empty and isinstance(target, ast.Name) and target.id == _TABLE else None


def _refuse_what_is_left(module: Module, understood: set[ast.AST]) -> None:
    """Raise DescriptionError for what else is done with the table, or the old names, on import."""
    module.refuse_hidden()
    using = _using(module)
    for node in source_names.at_import(module.tree):
        if node in understood:
            continue
        if isinstance(node, ast.Name) and node.id in using:
            raise module.error(node, f"podkiln cannot read what {node.id} does with {_TABLE}")
        name = _name_of(node)
        if name in {_TABLE, _LEGACY}:
            raise module.error(node, f"podkiln cannot read what is done with {name} here")


def _using(module: Module) -> set[str]:
    """Return the functions and classes that have to do with the table, or with others that have."""
    named = {
        each.name: {_name_of(node) for node in ast.walk(each) if node is not each}
        for each in ast.walk(module.tree)
        if isinstance(each, source_names.Definition)
    }
    found: set[str] = set()
    while more := {name for name, uses in named.items() if uses & {_TABLE, *found}} - found:
        found |= more
    return found


def _name_of(node: ast.AST) -> str | None:
    """Return the name that a node reads, binds or defines; a text is one too: getattr takes names so."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, source_names.Definition):
        return node.name
    if isinstance(node, ast.alias):
        return node.asname or node.name
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _check_names(
    module: Module, where: ast.AST, places: dict[str, tuple[list[str], list[str]]], known: dict[str, str]
) -> None:
    """Raise DescriptionError for an old name that cannot be written, or means no folder."""
    for old, key in known.items():
        if not _NAME.fullmatch(old):
            raise module.error(where, f"{shown(old)} is no name that podkiln can have for a folder")
        if key not in places or old in places:
            raise module.error(where, f"the old name {shown(old)} means no folder, or is one itself")


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
        if not _NAME.fullmatch(target.slice.value):
            what = f"{shown(target.slice.value)} is no name that podkiln can have for a folder"
            raise module.error(target, what)
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
        if not all(_DIRECTORY.fullmatch(part) for part in parts) or (
            roots[0] == _MODELS and not _NAME.fullmatch("/".join(parts))
        ):
            raise module.error(each, f"a directory of {key} has a name that podkiln cannot have")
        (below if roots[0] == _MODELS else beside).append("/".join(parts))
    return below, beside


def _joins(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "join" and not call.keywords


def _named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _legacy(module: Module, function: ast.FunctionDef) -> dict[str, str]:
    """Return the one table of constant texts that the function looks its argument up in, and does no more."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    table = body[0].value if len(body) == 2 and isinstance(body[0], ast.Assign) else None  # noqa: PLR2004
    if isinstance(table, ast.Dict) and not function.decorator_list and _looks_up(body):
        try:
            # A key that is None stands for `**`.
            keys: list[Any] = [key if key is None else module.value(key) for key in table.keys]
            values: list[Any] = [module.value(value) for value in table.values]
        except UnknownValueError:
            keys = values = []
        if keys and all(isinstance(each, str) for each in (*keys, *values)):
            return dict(zip(keys, values, strict=True))
    raise module.error(function, f"podkiln cannot read the old names of {_LEGACY}")


def _looks_up(body: list[ast.stmt]) -> bool:
    """Return whether a body is `TABLE = …; return TABLE.get(NAME, NAME)`."""
    made, asked = body
    if not isinstance(made, ast.Assign) or not isinstance(asked, ast.Return):
        return False
    table, call = made.targets[-1], asked.value
    return (
        isinstance(table, ast.Name)
        and len(made.targets) == 1
        and isinstance(call, ast.Call)
        and ast.unparse(call.func) == f"{table.id}.get"
        and not call.keywords
        and [type(each) for each in call.args] == [ast.Name, ast.Name]
        and ast.dump(call.args[0]) == ast.dump(call.args[1])
    )
