"""ComfyUI's command line, read off comfy/cli_args.py: argparse's calls as they stand there, none of it run.

What a call says is taken over: names, number of values, type, choices, default, the exclusive group. What it
says in another way than argparse's documentation has it (https://docs.python.org/3/library/argparse.html) is
refused, with file and line: a flag that was half understood would be refused or passed on wrongly in pods.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from podkiln.config.source_syntax import Module, UnknownValueError, calls
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "comfy/cli_args.py"
_ARITIES: Final = {None: "one", "?": "optional", "*": "any", "+": "some", 1: "one"}
_TYPES: Final = {"str": "str", "int": "int", "float": "float"}
# What changes nothing of what the parser takes.
_SILENT: Final = frozenset({"help", "metavar", "dest", "const"})
# Methods of the parser that add nothing to it, and those that do.
_HARMLESS: Final = frozenset({"parse_args", "parse_known_args", "error", "print_help", "print_usage", "exit"})
_ADDING: Final = {
    "add_argument": "a flag is added inside of another statement, where podkiln cannot read it",
    **{
        method: f"podkiln cannot read what {method} does here"
        for method in (
            *("add_mutually_exclusive_group", "add_argument_group", "add_subparsers", "set_defaults"),
            "register",
        )
    },
}
_NAME: Final = re.compile(r"--[a-z0-9][a-z0-9_-]*")  # podkiln.config.fields.FlagName
_LONGEST: Final = 1000  # characters of one value
_LARGEST: Final = 1 << 63
_MOST: Final = 1000  # values of one flag
_KNOWN: Final = _SILENT | {"action", "choices", "default", "nargs", "type"}


@dataclass(frozen=True)
class ReadFlag:
    """One flag as the parser has it.

    Attributes:
        name: With its dashes.
        line: Of the call, from 1.
        arity: none, one, optional (none or one), any, some (one or more).
        type: str, int, float, folder or file.
        choices: The only values.
        most: The most values, where the module refuses more of them.
        group: Flags of one group exclude each other.
        repeat: Whether it may be given several times, each adding to the others.
        default: Its value where it is not given; None where that is None, or is computed.
        action: The name of an action of the module's own: what that does with the values is not read.
    """

    name: str
    line: int
    arity: str = "none"
    type: str = "str"
    choices: tuple[str, ...] = ()
    most: int | None = None
    group: str | None = None
    repeat: bool = False
    default: str | int | float | None = None
    action: str | None = None


def read(tree: Path) -> tuple[ReadFlag, ...]:
    """Return the flags of a source tree, in the parser's order.

    Raises SourceError: there is no such file, or it is no Python. Raises DescriptionError: it has a construct
    that is not understood.
    """
    module = Module.read(tree / FILE)
    reader = _Reader(module)
    for statement in module.tree.body:
        reader.take(statement)
    reader.refuse_what_is_left()
    return reader.limited()


class _Reader:
    """Goes through the module's statements, and knows its parser and groups by name."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.parser: str | None = None
        self.groups: dict[str, str | None] = {}
        self.flags: list[ReadFlag] = []
        self.seen: set[ast.Call] = set()
        self.bound: set[ast.expr] = set()  # where the parser and its groups get their names

    def take(self, statement: ast.stmt) -> None:
        """Take one statement in."""
        value = statement.value if isinstance(statement, ast.Assign | ast.Expr) else None
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            if value.func.attr == "ArgumentParser":
                self._parser(statement, value)
                return
            owner = value.func.value.id if isinstance(value.func.value, ast.Name) else None
            if owner is not None and (owner == self.parser or owner in self.groups):
                if value.func.attr in {"add_mutually_exclusive_group", "add_argument_group"}:
                    self._group(statement, value, str(owner))
                    return
                if value.func.attr == "add_argument" and isinstance(statement, ast.Expr):
                    self._flags(value, self.groups.get(str(owner)))
                    return
        self.module.learn(statement)

    def refuse_what_is_left(self) -> None:
        """Raise DescriptionError for calls that add flags elsewhere than at the module's top level."""
        if self.parser is None:
            raise self.module.error(self.module.tree, "there is no `NAME = argparse.ArgumentParser()` here")
        self.module.refuse_hidden()
        for node in ast.walk(self.module.tree):
            if isinstance(node, ast.Attribute) and node.attr in _ADDING and not self._taken(node):
                raise self.module.error(node, _ADDING[node.attr])
            if isinstance(node, ast.Name) and (node.id == self.parser or node.id in self.groups):
                if node in self.bound or not self.module.is_own(node):
                    continue
                above = self.module.above[node]
                if not isinstance(above, ast.Attribute) or not (self._taken(above) or self._harmless(above)):
                    raise self.module.error(node, f"podkiln cannot read what is done with {node.id} here")
        if not self.flags:
            raise self.module.error(self.module.tree, "its parser has no flags")

    def _taken(self, node: ast.Attribute) -> bool:
        call = self.module.above[node]
        return isinstance(call, ast.Call) and call.func is node and call in self.seen

    def _harmless(self, node: ast.Attribute) -> bool:
        call = self.module.above[node]
        return isinstance(call, ast.Call) and call.func is node and node.attr in _HARMLESS

    def limited(self) -> tuple[ReadFlag, ...]:
        """Return the flags, with what the module refuses after its parser has run.

        That is read in one form, `if … len(args.NAME) > N: parser.error(…)`; any other is refused.
        """
        most: dict[str, int] = {}
        for statement in self.module.tree.body:
            refusals = calls([statement], "error") if not isinstance(statement, ast.ClassDef) else []
            if refusals:
                found = _limit(statement) if isinstance(statement, ast.If) else None
                if found is None:
                    raise self.module.error(refusals[0], "podkiln cannot read which arguments this refuses")
                if found[0] not in {_destination(flag) for flag in self.flags}:
                    raise self.module.error(refusals[0], f"no flag is called {found[0]}")
                most[found[0]] = found[1]
        return tuple(replace(flag, most=most.get(_destination(flag))) for flag in self.flags)

    def _parser(self, statement: ast.stmt, call: ast.Call) -> None:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if self.parser is not None or not isinstance(target, ast.Name):
            raise self.module.error(call, "podkiln reads one parser, that is given a name")
        changed = {each.arg for each in call.keywords} - {"description", "prog", "epilog", "formatter_class"}
        if changed:
            raise self.module.error(call, f"podkiln cannot read what {min(map(str, changed))} does here")
        self.parser = target.id
        self.bound.add(target)

    def _group(self, statement: ast.stmt, call: ast.Call, owner: str) -> None:
        assert isinstance(call.func, ast.Attribute)  # noqa: S101 - take() has looked
        self.seen.add(call)
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if not isinstance(target, ast.Name):
            raise self.module.error(call, "podkiln reads groups that are given a name")
        self.bound.add(target)
        if call.func.attr == "add_argument_group":  # only for --help
            self.groups[target.id] = self.groups.get(owner)
            return
        if self.groups.get(owner) or any(each.arg != "required" for each in call.keywords):
            raise self.module.error(call, "podkiln cannot read this group")
        name = target.id.removesuffix("_group").replace("_", "-")
        if name in self.groups.values():
            raise self.module.error(call, f"there are two groups called {target.id}")
        self.groups[target.id] = name

    def _flags(self, call: ast.Call, group: str | None) -> None:
        self.seen.add(call)
        names = []
        for each in call.args:
            if not isinstance(each, ast.Constant) or not isinstance(each.value, str):
                raise self.module.error(each, "podkiln cannot read the name of this flag")
            if not each.value.startswith("-"):
                raise self.module.error(each, f"{each.value!r} is an argument without a flag")
            if each.value.startswith("--"):
                names.append(each.value)
        if strange := next((name for name in names if not _NAME.fullmatch(name)), None):
            raise self.module.error(call, f"{shown(strange)} is no name that a flag of ComfyUI can have")
        given = {each.arg: each.value for each in call.keywords}
        unknown = sorted(str(name or "**") for name in given if name not in _KNOWN)
        if unknown or not names:
            what = f"{names[0]} has {unknown[0]}=" if names else "this flag has no long name"
            raise self.module.error(call, f"{what}, which podkiln cannot read")
        taken = {flag.name for flag in self.flags}
        if twice := next((name for name in names if name in taken), None):
            raise self.module.error(call, f"{twice} is added twice")
        flag = self._flag(call, names[0], {str(name): value for name, value in given.items()}, group)
        self.flags += [replace(flag, name=name) for name in names]

    def _flag(self, call: ast.Call, name: str, given: dict[str, ast.expr], group: str | None) -> ReadFlag:
        flag = ReadFlag(name, call.lineno, group=group)
        flag = self._with_action(flag, given)
        if flag.arity != "none":
            flag = self._with_values(flag, given)
        default = self._default(given.get("default"))
        if strange := next((each for each in (default, *flag.choices) if not _is_writable(each)), None):
            raise self.module.error(call, f"podkiln cannot write a value of {name}: {_said(strange)}")
        return replace(flag, default=default)

    def _with_action(self, flag: ReadFlag, given: dict[str, ast.expr]) -> ReadFlag:
        action = given.get("action")
        if isinstance(action, ast.Constant) and action.value in {"store_true", "store_false"}:
            return flag
        values = replace(flag, arity=self._arity(flag.name, given.get("nargs")))
        if action is None or (isinstance(action, ast.Constant) and action.value in {None, "store"}):
            return values
        if isinstance(action, ast.Constant) and action.value in {"append", "extend"}:
            return replace(values, repeat=True)
        if isinstance(action, ast.Name) and action.id in self.module.classes:
            kind = given.get("type")  # for an enum, the action turns its values into members
            enum = self._members(kind) is not None
            return values if enum else replace(values, action=action.id)
        raise self.module.error(action, f"podkiln cannot read the action of {flag.name}")

    def _arity(self, name: str, nargs: ast.expr | None) -> str:
        try:
            return _ARITIES[None if nargs is None else self.module.value(nargs)]
        except (UnknownValueError, KeyError, TypeError):
            assert nargs is not None  # noqa: S101 - None is known
            raise self.module.error(nargs, f"podkiln cannot read how many values {name} takes") from None

    def _with_values(self, flag: ReadFlag, given: dict[str, ast.expr]) -> ReadFlag:
        kind, choices = given.get("type"), given.get("choices")
        if (members := self._members(kind)) is not None:
            return replace(flag, choices=tuple(dict.fromkeys(members.values())))
        if choices is not None:
            try:
                flag = replace(flag, choices=tuple(self.module.strings(choices)))
            except UnknownValueError:
                raise self.module.error(choices, f"podkiln cannot read the choices of {flag.name}") from None
        return replace(flag, type=self._type(flag.name, kind)) if kind is not None else flag

    def _members(self, kind: ast.expr | None) -> dict[str, str] | None:
        """Return the members of a type that is an enum; None of another type. Raises DescriptionError."""
        if not isinstance(kind, ast.Name) or kind.id not in self.module.enums:
            return None
        if (strange := self.module.unread.get(kind.id)) is not None:
            raise self.module.error(strange, f"podkiln cannot read the members of {kind.id}")
        return self.module.enums[kind.id]

    def _type(self, name: str, kind: ast.expr) -> str:
        if isinstance(kind, ast.Name):
            if kind.id in _TYPES and not self.module.bound[kind.id]:
                return _TYPES[kind.id]
            if function := self.module.functions.get(kind.id):
                for method, meaning in (("isdir", "folder"), ("isfile", "file")):
                    if calls([function], method):
                        return meaning
        raise self.module.error(kind, f"podkiln cannot read the type of {name}")

    def _default(self, node: ast.expr | None) -> str | int | float | None:
        try:
            found: Any = None if node is None else self.module.value(node)
        except UnknownValueError:
            return None
        return found if isinstance(found, str | int | float) and not isinstance(found, bool) else None


def _destination(flag: ReadFlag) -> str:
    return flag.name.removeprefix("--").replace("-", "_")


def _is_writable(value: str | float | None) -> bool:
    """Whether a value can stand in a file, and is read back as it was."""
    if isinstance(value, str):
        return value.isprintable() and len(value) <= _LONGEST
    return value is None or (math.isfinite(value) if isinstance(value, float) else abs(value) < _LARGEST)


def _said(value: str | float | None) -> str:
    if isinstance(value, str):
        return f"it is longer than {_LONGEST} characters, or has some that are not shown"
    return "it is too large a number"


def _limit(statement: ast.If) -> tuple[str, int] | None:
    """Return destination and number of `if [… and] len(args.DEST) > N:`; None for another condition."""
    test = statement.test
    several = isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And)
    found = [
        _compared(each) for each in (test.values if isinstance(test, ast.BoolOp) and several else [test])
    ]
    numbers = [each for each in found if isinstance(each, tuple)]
    if statement.orelse or None in found or len(numbers) != 1:
        return None
    destination, most = numbers[0]
    return (destination, most) if found in ([numbers[0]], [destination, numbers[0]]) else None


def _compared(node: ast.expr) -> str | tuple[str, int] | None:
    """Return DEST of `args.DEST` and `args.DEST is not None`, and with N of `len(args.DEST) > N`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr
    if not isinstance(node, ast.Compare) or len(node.ops) != 1:
        return None
    left, sign, right = node.left, node.ops[0], node.comparators[0]
    if not isinstance(right, ast.Constant):
        return None
    if isinstance(sign, ast.IsNot) and right.value is None and isinstance(left, ast.Attribute):
        return left.attr
    if (
        isinstance(sign, ast.Gt)
        and type(right.value) is int
        and 0 < right.value <= _MOST
        and isinstance(left, ast.Call)
        and isinstance(left.func, ast.Name)
        and left.func.id == "len"
        and len(left.args) == 1
        and isinstance(left.args[0], ast.Attribute)
    ):
        return left.args[0].attr, right.value
    return None
