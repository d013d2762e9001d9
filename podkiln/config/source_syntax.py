"""Reading Python source without running it: the constants of a module, and where something is that is none.

ComfyUI's source is read as Python's own syntax tree (https://docs.python.org/3/library/ast.html): nothing of
it is imported or executed, whoever wrote it.
"""

from __future__ import annotations

import ast
import contextlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from podkiln.config import source_names
from podkiln.errors import DescriptionError, SourceError
from podkiln.util import files

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable
    from pathlib import Path

_READING: Final = frozenset({"set", "list", "tuple", "len", "sorted", "map"})  # nothing is changed
# Methods that decide which members an enum has, or which values they are found by.
_SHAPING: Final = frozenset({"__new__", "__init__", "_missing_", "_generate_next_value_", "__iter__"})
MOST_BYTES: Final = 1 << 20  # of one file; those that are read have up to 20 KB


def content_of(path: Path) -> bytes:
    """Return what a file of a source tree holds. Raises SourceError: missing, no file, too large."""
    if problem := files.problem(path):  # a FIFO would be waited for
        raise SourceError(f"{path} {problem}.")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as unreadable:
        raise SourceError(f"{path} cannot be read: {unreadable.strerror or unreadable}.") from None
    if len(content) > MOST_BYTES:
        raise SourceError(f"{path} is larger than {MOST_BYTES >> 20} MiB, and none of ComfyUI's.")
    return content


class UnknownValueError(Exception):
    """An expression is no constant."""


@dataclass
class Module:
    """A module's syntax tree, and the names that its statements have given a constant value so far.

    Attributes:
        path: The file, for sentences.
        tree: Its syntax tree.
        constants: Values by name.
        enums: The members of each enum.Enum, values by name, in their order.
        functions: Functions by name.
        classes: All other classes by name.
        unread: What is no such thing though it looks like one, with the place why.
    """

    path: Path
    tree: ast.Module
    constants: dict[str, Any] = field(default_factory=dict)
    enums: dict[str, dict[str, Any]] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    unread: dict[str, ast.AST] = field(default_factory=dict)

    @cached_property
    def above(self) -> dict[ast.AST, ast.AST]:
        """Return the node that each node stands in."""
        return source_names.parents(self.tree)

    @cached_property
    def bound(self) -> Counter[str]:
        """Return how often each name is bound."""
        return source_names.bound(self.tree)

    @classmethod
    def read(cls, path: Path) -> Module:
        """Parse a file. Raises SourceError: missing, no file, too large, no Python."""
        content = content_of(path)
        try:
            return cls(path, ast.parse(content, filename=str(path)))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as broken:
            line = getattr(broken, "lineno", None) or 1
            why = f": {broken}" if str(broken) else ""  # of a MemoryError there is none
            raise SourceError(f"{path}:{line}: this is not Python that can be parsed{why}.") from None

    def error(self, node: ast.AST, what: str) -> DescriptionError:
        """Make the error for a construct that is not understood."""
        line = getattr(node, "lineno", 1)
        return DescriptionError(
            f"{self.path}:{line}: {what}.",
            hint="Nothing was written. podkiln reads what stands there as written, and runs none of it: "
            "report this line, or write the release's files by hand.",
        )

    def learn(self, statement: ast.stmt) -> None:
        """Take in what a statement of the module's top level defines, where nothing else changes it."""
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) and (
            self.bound[statement.name] > 1 or statement.decorator_list
        ):
            self.unread[statement.name] = statement
        elif isinstance(statement, ast.ClassDef):
            if any(_last_name(base).endswith("Enum") for base in statement.bases):
                self._enum(statement)
            else:
                self.classes[statement.name] = statement
        elif isinstance(statement, ast.FunctionDef):
            self.functions[statement.name] = statement
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                if isinstance(target, ast.Name) and self.bound[target.id] == 1:
                    with contextlib.suppress(UnknownValueError):  # refused where it is used
                        value = self.value(statement.value)
                        fixed = isinstance(statement.value, ast.Constant | ast.Tuple)
                        if fixed or self.changed(target.id, ()) is None:
                            self.constants[target.id] = value

    def _enum(self, definition: ast.ClassDef) -> None:
        members, strange = _members(definition)
        self.enums[definition.name] = members
        strange = strange or self.changed(definition.name, members)
        if strange is not None:
            self.unread[definition.name] = strange

    def changed(self, name: str, members: Iterable[str]) -> ast.AST | None:
        """Return the first use of a name that may change what it stands for, in place or by another name."""
        uses = (
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
        )
        return next((use for use in uses if not self._only_read(use, members)), None)

    def _only_read(self, use: ast.Name, members: Iterable[str]) -> bool:
        above = self.above[use]
        if isinstance(above, ast.Attribute):
            beyond = self.above[above]
            read = not isinstance(beyond, ast.Attribute) or beyond.attr in {"name", "value"}
            return isinstance(above.ctx, ast.Load) and above.attr in members and read
        if isinstance(above, ast.Call):
            return use in above.args and isinstance(above.func, ast.Name) and above.func.id in _READING
        if isinstance(above, ast.keyword):
            call = self.above[above]
            return isinstance(call, ast.Call) and _last_name(call.func) == "add_argument"
        if isinstance(above, ast.For | ast.comprehension):
            return use is above.iter
        return isinstance(above, ast.Compare | ast.arg)

    def refuse_hidden(self) -> None:
        """Raise DescriptionError for names that are not written: imports of all, code from text."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.alias) and node.name == "*":
                raise self.error(self.above[node], "podkiln cannot read which names are imported here")
            if isinstance(node, ast.Name) and node.id in source_names.HIDDEN:
                raise self.error(node, f"podkiln cannot read what {node.id} does here")

    def is_own(self, node: ast.Name) -> bool:
        """Return whether a name is the module's, and no argument of a function around it."""
        above: ast.AST | None = self.above.get(node)
        while above is not None:
            if isinstance(above, source_names.Function) and source_names.takes(above, node.id):
                return False
            above = self.above.get(above)
        return True

    def value(self, node: ast.expr) -> Any:
        """Return a constant expression's value, for an enum's member its value. Raises UnknownValueError."""
        if isinstance(node, ast.Name) and node.id in self.constants:
            return self.constants[node.id]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            members = self.enums.get(node.value.id, {})
            if node.attr in members:
                return members[node.attr]
        if isinstance(node, ast.List | ast.Tuple):
            return [self.value(each) for each in node.elts]
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise UnknownValueError from None

    def strings(self, node: ast.expr) -> list[str]:
        """Return a constant list of texts. Raises UnknownValueError."""
        found = self.value(node)
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise UnknownValueError
        return found


def calls(nodes: Iterable[ast.AST], method: str) -> list[ast.Call]:
    """Return the calls of a method below some nodes, by line."""
    found = [
        each
        for node in nodes
        for each in ast.walk(node)
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == method
    ]
    return sorted(found, key=lambda call: (call.lineno, call.col_offset))


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _members(definition: ast.ClassDef) -> tuple[dict[str, str], ast.AST | None]:
    """Return an enum's members, and the first place where one is no plain text, or may be."""
    found: dict[str, str] = {}
    strange: ast.AST | None = definition if definition.keywords else None
    for statement in definition.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            value = statement.value.value if isinstance(statement.value, ast.Constant) else None
            named = [each.id for each in targets if isinstance(each, ast.Name)]
            if len(named) < len(targets) or not isinstance(value, str) or named[0].startswith("_"):
                strange = strange or statement
            else:
                found |= dict.fromkeys(named, value)
        elif isinstance(statement, ast.FunctionDef):
            strange = strange or (statement if statement.name in _SHAPING else None)
        elif not isinstance(statement, ast.Pass) and not _is_text(statement):
            strange = strange or statement
    return found, strange


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a text alone, as documentation is."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
