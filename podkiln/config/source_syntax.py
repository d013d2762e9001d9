"""Reading Python source without running it: the constants of a module, and where something is that is none.

ComfyUI's source is read as Python's own syntax tree (https://docs.python.org/3/library/ast.html): nothing of
it is imported or executed, whoever wrote it.
"""

from __future__ import annotations

import ast
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from podkiln.errors import DescriptionError, SourceError
from podkiln.util import files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

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
    """

    path: Path
    tree: ast.Module
    constants: dict[str, Any] = field(default_factory=dict)
    enums: dict[str, dict[str, Any]] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)

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
        """Take in what a statement of the module's top level defines."""
        if isinstance(statement, ast.ClassDef):
            if any(_last_name(base).endswith("Enum") for base in statement.bases):
                self.enums[statement.name] = _members(statement)
            else:
                self.classes[statement.name] = statement
        elif isinstance(statement, ast.FunctionDef):
            self.functions[statement.name] = statement
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    self.constants.pop(target.id, None)
                    with contextlib.suppress(UnknownValueError):  # refused where it is used
                        self.constants[target.id] = self.value(statement.value)

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


def _members(definition: ast.ClassDef) -> dict[str, Any]:
    """Return an enum's members whose value is written out."""
    found: dict[str, Any] = {}
    for statement in definition.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            found |= {
                target.id: statement.value.value
                for target in statement.targets
                if isinstance(target, ast.Name)
            }
    return found
