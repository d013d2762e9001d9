"""What an annotation of diffusers says of a parameter, read as text: nothing of it has to be importable.

Both ways of writing occur: `str | list[str]` in the source, `Optional[Union[str, List[str]]]` in older
classes, and, where the real objects were asked, names with their modules (`PIL.Image.Image`).
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

_SCALARS = {"str": "text", "int": "integer", "float": "number", "bool": "boolean"}
_LISTS = {"list", "List", "Sequence", "Iterable"}
_TUPLES = {"tuple", "Tuple"}
_MEDIA = re.compile(r"Pipeline(?:Image|Mask|Video|Audio)Input|(?:^|\.)Image(?:Input)?$")
_TENSORS = re.compile(r"(?:^|\.)(?:\w*Tensor|ndarray)$")


@dataclass(frozen=True)
class Type:
    """What is taken: a kind of `Parameter`, one value or a list, of a length that is given or 0.

    `kind` is "" where nothing is taken that a client could send, and "tensor" where only arrays are.
    """

    kind: str
    single: bool = True
    many: bool = False
    length: int = 0
    choices: tuple[str, ...] = ()


NOTHING = Type("")


def text(annotation: Any) -> str:
    """Return an annotation as text; "" where there is none."""
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def read(annotation: str, default: Any = None) -> Type:
    """Return what an annotation takes; without one, what the default is tells it."""
    try:
        members = _parsed(annotation.strip()) if annotation else []
    except (SyntaxError, ValueError):
        return NOTHING
    if not members:
        kind = _of_default(default)
        return Type(kind) if kind else NOTHING
    found = [_member(each, default) for each in members]
    choices = tuple(choice for each in found for choice in each.choices)
    kinds = [each.kind for each in found if each.kind not in {"", "tensor"}]
    if not kinds:
        return Type("tensor") if any(each.kind == "tensor" for each in found) else NOTHING
    kind = _widest(kinds, default)
    fitting = [each for each in found if each.kind in {kind, *_narrower(kind)}]
    return Type(
        kind,
        single=any(each.single for each in fitting),
        many=any(each.many for each in fitting),
        length=max(each.length for each in fitting) if not any(_free(each) for each in fitting) else 0,
        choices=choices if kind == "text" else (),
    )


@cache
def _parsed(annotation: str) -> list[ast.expr]:
    return _members(ast.parse(annotation, mode="eval").body)


def _free(member: Type) -> bool:
    return member.many and not member.length


def _widest(kinds: list[str], default: Any) -> str:
    for kind in ("media", "text", "number", "integer"):
        if kind in kinds:
            fraction = kind == "integer" and isinstance(default, float)
            return "number" if fraction else kind
    return "boolean"


def _narrower(kind: str) -> set[str]:
    return {"integer"} if kind == "number" else set()


def _members(node: ast.expr) -> list[ast.expr]:
    """Return what a union is of, without None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a name before its definition
        return _members(ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _members(node.left) + _members(node.right)
    if isinstance(node, ast.Subscript):
        head = ast.unparse(node.value).rpartition(".")[2]
        if head in {"Optional", "Union"}:
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return [member for part in parts for member in _members(part)]
    if ast.unparse(node) in {"None", "NoneType"}:
        return []
    return [node]


def _member(node: ast.expr, default: Any) -> Type:
    name = ast.unparse(node)
    if name in _SCALARS:
        return Type(_SCALARS[name])
    if name in _LISTS | _TUPLES:
        kind = _of_default(default[0]) if isinstance(default, list | tuple) and default else ""
        return Type(kind, single=False, many=True) if kind else NOTHING
    if _MEDIA.search(name) and not isinstance(node, ast.Subscript):
        return Type("media", many=name.endswith("Input"))
    if _TENSORS.search(name):
        return Type("tensor")
    return _generic(node) if isinstance(node, ast.Subscript) else NOTHING


def _generic(node: ast.Subscript) -> Type:
    head = ast.unparse(node.value).rpartition(".")[2]
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if head == "Literal":
        words = [each.value for each in parts if isinstance(each, ast.Constant)]
        texts = tuple(word for word in words if isinstance(word, str))
        return Type("text", choices=texts) if len(texts) == len(words) else NOTHING
    if head not in _LISTS | _TUPLES:
        return NOTHING
    inner = [member for part in parts if ast.unparse(part) != "..." for member in _members(part)]
    found = [_member(member, None) for member in inner]
    kinds = {each.kind for each in found if each.single or each.kind == "media"} - {"", "tensor"}
    if len(kinds) != 1 or (any(isinstance(each, ast.Subscript) for each in inner) and kinds != {"media"}):
        return Type("tensor") if all(_TENSORS.search(ast.unparse(each)) for each in inner) else NOTHING
    length = len(parts) if head in _TUPLES and len(parts) > 1 and ast.unparse(parts[-1]) != "..." else 0
    return Type(kinds.pop(), single=False, many=True, length=length)


def _of_default(default: Any) -> str:
    return _SCALARS.get(type(default).__name__, "")
