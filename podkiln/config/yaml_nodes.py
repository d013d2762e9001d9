"""YAML text to a checked tree of nodes: the plain part of YAML 1.2, without its traps and its bombs.

What PyYAML reads by default is YAML 1.1: `no` is false there, 0777 is 511 and 1:30 is 90. Here only true and
false, plain numbers, null and text exist, as editors show them (YAML 1.2, chapter 10.3, the core schema).
"""

from __future__ import annotations

import contextlib
import functools
import re
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from pod.util.printable import printable
from podkiln.config.messages import MAX_DIGITS
from podkiln.errors import DescriptionError
from podkiln.util import quoting

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 256 << 10
MOST_VALUES = 100_000  # every alias counted as often as it is used
DEEPEST = 40
_YAML = "tag:yaml.org,2002:"  # what `!!` stands for
# What a tag can be written before. An explicit tag promises a form that the value need not have: `!!int abc`.
_HOLDING = {f"{_YAML}map": yaml.MappingNode, f"{_YAML}seq": yaml.SequenceNode}
_TEXT = f"{_YAML}str"
_FORMS = {
    f"{_YAML}bool": re.compile(r"true|false"),
    f"{_YAML}int": re.compile(rf"[-+]?(?:0|[1-9][0-9_]{{0,{MAX_DIGITS - 1}}})"),
    f"{_YAML}float": re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}"),
    f"{_YAML}null": re.compile(r"~|null|"),
}
_FIRST = {"bool": "tf", "int": "-+0123456789", "float": "-+0123456789", "null": ["~", "n", ""]}


class _Loader(yaml.SafeLoader):
    """SafeLoader that takes for numbers and booleans only what looks like them."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own name and type


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same by libyaml, ten times as fast; its words for mistakes are not as good."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


for _tag, _form in _FORMS.items():
    _first = list(_FIRST[_tag.removeprefix(_YAML)])
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_form.pattern})\Z"), _first)


def parse(path: Path, text: str | None = None) -> yaml.MappingNode:
    """Read a YAML file whose top level is a mapping. Raises DescriptionError with file and line.

    Args:
        path: The file.
        text: What it will hold, where it is not written yet.
    """
    return _parsed(path, _text(path) if text is None else text)


# A run reads most descriptions several times, once for each variant that names them; the tree is only read.
@functools.lru_cache(maxsize=512)
def _parsed(path: Path, text: str) -> yaml.MappingNode:
    _refuse_depth(path, text)
    try:
        root = _compose(text)
        if not isinstance(root, yaml.MappingNode):
            raise _broken(path, 1, "the top level must be a mapping of keys")
        _check(path, root, {})
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark or broken.context_mark
        raise _broken(path, mark.line + 1 if mark else 1, f"not valid YAML: {broken.problem}") from None
    except yaml.reader.ReaderError as broken:
        line = text.count("\n", 0, broken.position) + 1
        raise _broken(
            path, line, f"the character U+{ord(text[broken.position]):04X} is not allowed"
        ) from None
    except _ImpossibleError as broken:
        raise _broken(path, broken.line, "an escape or a directive holds an impossible number") from None
    except RecursionError:  # what libyaml does not read, PyYAML may, to any depth
        raise _broken(path, 1, "something in it is nested too deeply") from None
    return root


class _ImpossibleError(Exception):
    """PyYAML converts numbers of escapes and of %YAML without a look at their size."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def _compose(text: str) -> yaml.Node | None:
    """Compose with libyaml; on an error again with PyYAML, whose messages are better.

    Raises YAMLError and _ImpossibleError.
    """
    with contextlib.suppress(yaml.YAMLError, ValueError):
        return yaml.compose(text, Loader=_FastLoader)
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    except (ValueError, OverflowError):
        raise _ImpossibleError(loader.line + 1) from None
    finally:
        loader.dispose()


def _refuse_depth(path: Path, text: str) -> None:
    """Refuse deep nesting before the recursive composer reads it.

    Composing recurses: PyYAML on Python's stack, in quadratic time; libyaml on that of C, without a limit
    (`? ? ? ...` ends the process). Events come one after the other by either, without a stack.
    """
    depth = 0
    with contextlib.suppress(yaml.YAMLError, ValueError, OverflowError):  # said better where it is composed
        for event in yaml.parse(text, Loader=_FastLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > DEEPEST + 1:  # the top level is one
                    line = event.start_mark.line + 1 if event.start_mark else 1
                    raise _broken(path, line, f"nested more than {DEEPEST} levels deep")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1


def construct(root: yaml.MappingNode) -> dict[str, Any]:
    """Return the data of a checked tree."""
    data: dict[str, Any] = _Loader("").construct_document(root)
    return data


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise DescriptionError(f"{path}: there is no such file.") from None
    except OSError as unreadable:
        why = unreadable.strerror or unreadable
        raise DescriptionError(f"{path}: cannot be read: {why}.") from None
    except ValueError as malformed:  # a path that cannot be one
        raise DescriptionError(f"{path}: cannot be read: {malformed}.") from None
    if len(content) > MOST_BYTES:
        raise DescriptionError(f"{path}: is larger than {MOST_BYTES >> 10} KiB, too large for a description.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as broken:
        line = content.count(b"\n", 0, broken.start) + 1
        raise _broken(path, line, "this is not UTF-8 text") from None


class _Extent(NamedTuple):
    """What a node stands for, aliases followed: values, and levels below it."""

    size: int
    height: int


def _check(path: Path, node: yaml.Node, known: dict[int, _Extent | None], key: str = "") -> _Extent:
    """Check a node and all below it; an alias is the node itself, and is checked and counted once."""
    if id(node) in known:
        extent = known[id(node)]
        if extent is None:
            raise _broken(path, _line(node), "an alias that contains itself")
        return extent
    _check_tag(path, node, key)
    known[id(node)] = None
    inner: list[tuple[str, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        _check_keys(path, node)
        inner = [(f"{key}.{name.value}" if key else name.value, value) for name, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        inner = [(f"{key}[{number}]", value) for number, value in enumerate(node.value)]
    else:
        _check_text(path, node)
    held = [_check(path, value, known, where) for where, value in inner]
    extent = _Extent(1 + sum(each.size for each in held), max((each.height + 1 for each in held), default=0))
    if extent.size > MOST_VALUES:
        raise _broken(path, _line(node), f"its aliases stand for more than {MOST_VALUES} values")
    if extent.height > DEEPEST:
        raise _broken(path, _line(node), f"nested more than {DEEPEST} levels deep")
    known[id(node)] = extent
    return extent


def _check_tag(path: Path, node: yaml.Node, key: str) -> None:
    """Refuse a tag that is not used here, and one that does not fit its value, before PyYAML converts it."""
    if isinstance(node, yaml.ScalarNode):
        form = _FORMS.get(node.tag)
        fits = bool(form.fullmatch(node.value)) if form else node.tag == _TEXT
    else:
        fits = node.tag in _HOLDING and isinstance(node, _HOLDING[node.tag])
    if fits:
        return
    tag = f"!!{node.tag.removeprefix(_YAML)}" if node.tag.startswith(_YAML) else node.tag
    if node.tag in {*_FORMS, *_HOLDING, _TEXT}:
        value = quoting.shown(node.value) if isinstance(node, yaml.ScalarNode) else "what follows"
        what = f"the tag {tag} does not fit {value}: leave the tag out"
    else:
        what = f"the tag {quoting.cut(tag)} is not used in descriptions"
    raise _broken(path, _line(node), f"{key}: {what}" if key else what)


def _check_keys(path: Path, node: yaml.MappingNode) -> None:
    """YAML lets a later key win silently; a description where one key means two things is a mistake."""
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _broken(path, _line(key), "a key must be plain text")
        cut = quoting.cut(key.value.replace("\n", " ")) or "an empty key"
        _check_text(path, key)
        if not key.value.isprintable():
            raise _broken(
                path,
                _line(key),
                f"{printable(cut)}: a key stands on one line, without marks that are not shown",
            )
        if key.tag not in {_TEXT, f"{_YAML}int"}:
            raise _broken(path, _line(key), f"{cut}: a key must be text: quote it")
        _check_tag(path, key, cut)
        if key.value in seen:
            raise _broken(path, _line(key), f"{cut}: the key is duplicated")
        seen.add(key.value)


def _check_text(path: Path, node: yaml.Node) -> None:
    """Refuse what cannot be written to a file or a terminal: lone surrogates, escapes."""
    for character in node.value:
        if unicodedata.category(character) in {"Cc", "Cs"} and character not in "\n\t":
            raise _broken(path, _line(node), f"the character U+{ord(character):04X} is not allowed")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _broken(path: Path, line: int, what: str) -> DescriptionError:
    return DescriptionError(f"{path}:{line}: {what}.")
