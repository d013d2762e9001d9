"""ComfyUI's argparse parser, made from flags.json: the same arities, groups, exit code and messages.

Source: comfy/cli_args.py of ComfyUI 0.33.0.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Row = dict[str, Any]

_NARGS = {"one": None, "optional": "?", "any": "*", "some": "+"}
_TYPES: dict[str, type] = {"int": int, "float": float}
# The real parser checks these two by an enum, and one of them says so.
_ENUM = {"--fast": "PerformanceFeature"}
_DEFAULTS: dict[str, Any] = {"listen": "127.0.0.1", "port": 8188, "cache_ram": [], "verbose": []}
_CONSTANTS = {"--listen": "0.0.0.0,::", "--enable-cors-header": "*", "--directml": -1}


class Levels(argparse.Action):
    """--verbose: nothing, LEVEL, or LEVEL FILE; may be repeated."""

    first: tuple[str, ...] = ()

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add one, or end as the real parser does."""
        given = list(values or [])
        if given and (len(given) > 2 or given[0] not in self.first):
            parser.error(f"{option_string} expects no values, a console LEVEL, or LEVEL FILE")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), given or ["DEBUG"]])


def parse(flags: Sequence[Row], argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line. Ends with 2 where the real parser does."""
    parser = argparse.ArgumentParser()
    groups: dict[str, Any] = {}
    for row in flags:
        group = row.get("group")
        if group and group not in groups:
            groups[group] = parser.add_mutually_exclusive_group()
        owner = groups[group] if group else parser
        owner.add_argument(row["name"], **_options(row))
    parser.set_defaults(**_DEFAULTS)
    args = parser.parse_args(argv)
    if args.cache_ram is not None and len(args.cache_ram) > 2:
        parser.error("--cache-ram accepts at most two values: active GB and inactive GB")
    return args


def _options(row: Row) -> dict[str, Any]:
    arity = row.get("arity", "none")
    if arity == "none":
        return {"action": "store_true"}
    if row.get("first"):
        return {"nargs": "*", "action": type("Levels", (Levels,), {"first": tuple(row["first"])})}
    options: dict[str, Any] = {"nargs": _NARGS[arity], "type": _type(row)}
    if row.get("choices") and row["name"] not in _ENUM:
        options["choices"] = tuple(row["choices"])
    if row.get("repeat"):
        options["action"] = "append"
    if row["name"] in _CONSTANTS:
        options["const"] = _CONSTANTS[row["name"]]
    return options


def _type(row: Row) -> Callable[[str], Any]:
    if row["name"] in _ENUM:
        return _enum(_ENUM[row["name"]], row["choices"])
    return _directory if row.get("type") == "folder" else _TYPES.get(row.get("type", "str"), str)


def _enum(name: str, choices: Sequence[str]) -> Callable[[str], str]:
    def feature(word: str) -> str:
        if word not in choices:
            raise ValueError(word)
        return word

    feature.__name__ = name  # argparse says "invalid PerformanceFeature value"
    return feature


def _directory(path: str) -> str:
    if not os.path.exists(path):  # noqa: PTH110 - as the real one
        raise argparse.ArgumentTypeError(f"The path '{path}' does not exist.")
    if not os.path.isdir(path):  # noqa: PTH112
        raise argparse.ArgumentTypeError(f"'{path}' is not a directory.")
    if not os.access(path, os.R_OK):
        raise argparse.ArgumentTypeError(f"You do not have read permissions for '{path}'.")
    return path
