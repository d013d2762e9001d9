"""Write what a release of diffusers says of its pipelines' parameters, read off its wheel, for tests.

    pip download diffusers==0.42.1 --no-deps
    python3 scripts/host/diffusers_signatures.py WHEEL tests/fixtures/diffusers/signatures.json

The wheel's code is parsed and never run. Each pipeline has its parameters as they are written, as numbers
into `parameters`; which of them its docstring's Args do not name; and of its code the statements that make
defaults or check bounds.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path

_LONGEST = 400  # characters of a statement that is kept
_BOUNDED = re.compile(
    r"(?:height|width|num_frames|video_length|max_sequence_length|strength|num_inference_steps)$"
)
# Whose parameters are no numbers, so that what is made of them says nothing of a default.
_OTHERS = re.compile(
    r"torch\.|encode_prompt|encode_image|prepare_|retrieve_|callback|\bself\.(?:unet|transformer)\(|hasattr|_dim="
)
_ROUNDED = re.compile(
    r"(?:height|width) // (.+) \* (?:\1|\(\1\))$|\((?:num_frames|video_length) - 1\) (?://|%) "
)
_ARGS = re.compile(r"^ {4}(\w+)\s*(?:\(.*|:.*)$", re.MULTILINE)


def classes(wheel: zipfile.ZipFile) -> dict[str, ast.ClassDef]:
    """Return the pipelines' classes by name."""
    found: dict[str, ast.ClassDef] = {}
    for name in sorted(wheel.namelist()):
        if re.match(r"diffusers/pipelines/.*\.py$", name):
            for node in ast.parse(wheel.read(name)).body:
                if isinstance(node, ast.ClassDef) and node.name.endswith("Pipeline"):
                    found.setdefault(node.name, node)
    return found


def methods(name: str, known: dict[str, ast.ClassDef]) -> dict[str, ast.FunctionDef]:
    """Return a class's methods, inherited ones too."""
    if name not in known:
        return {}
    found = {node.name: node for node in known[name].body if isinstance(node, ast.FunctionDef)}
    for base in known[name].bases:
        if isinstance(base, ast.Name):
            found = methods(base.id, known) | found
    return found


def written(arguments: ast.arguments) -> list[str]:
    """Return parameters as they are written, without self."""
    bare = [*[None] * (len(arguments.args) - len(arguments.defaults)), *arguments.defaults]
    pairs = [
        *zip(arguments.args, bare, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    found = []
    for arg, default in pairs[1:]:
        hint = f": {ast.unparse(arg.annotation)}" if arg.annotation else ""
        shown = "" if default is None else f" = {ast.unparse(default)}"
        found.append(f"{arg.arg}{hint}{shown if len(shown) < _LONGEST else ' = None'}")
    return found


def made(call: ast.FunctionDef) -> list[str]:
    """Return the statements of __call__ that give a value to what was left out."""
    names = {
        each.partition(":")[0] for each in written(call.args)
        if each.endswith("= None") and re.search(r": .*\b(?:int|float|str)\b", each)
    }  # fmt: skip
    found = []
    for node in call.body:
        stored = {
            each.id
            for each in ast.walk(node)
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
        }
        if isinstance(node, ast.Assign | ast.If) and stored & names:
            found.append(ast.unparse(node))
    return [each for each in found if len(each) <= _LONGEST and not _OTHERS.search(each)]


def checks(function: ast.FunctionDef) -> list[str]:
    """Return the statements of a function that bound a number, and what they are computed of."""
    steps: list[ast.expr] = []
    kept: list[str] = []
    for node in ast.walk(function):
        names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        if (
            isinstance(node, ast.If)
            and any(map(_BOUNDED.match, names))
            and isinstance(node.body[0], ast.Raise | ast.Expr)
        ):
            raises = any(isinstance(each, ast.Raise) for each in node.body)
            if any(isinstance(each, ast.Compare) for each in ast.walk(node.test)):
                steps.append(node.test)
                kept.append(f"if {ast.unparse(node.test)}: {'raise ValueError' if raises else 'pass'}")
        elif isinstance(node, ast.BinOp) and _ROUNDED.match(ast.unparse(node)):
            steps.append(node)
            kept.append(ast.unparse(node))
    used = {each.id for step in steps for each in ast.walk(step) if isinstance(each, ast.Name)}
    local: list[str] = []
    for node in reversed([each for each in ast.walk(function) if isinstance(each, ast.Assign)]):
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id in used and not _BOUNDED.match(target.id):
            used |= {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}
            local.insert(0, ast.unparse(node))
    return [each for each in dict.fromkeys([*local, *kept]) if len(each) <= _LONGEST]


def code(found: dict[str, ast.FunctionDef]) -> str:
    """Return a class's code as far as it says something of parameters."""
    parts = []
    for name, function in found.items():
        lines = made(function) if name == "__call__" else []
        lines += [line for line in checks(function) if line not in lines]
        if lines:
            body = "\n".join(lines).replace("\n", "\n    ")
            parts.append(f"def {name}(self):\n    {body}")
    return "\n".join(parts)


def main(wheel_path: str, out: str) -> int:
    """Write the file; returns 0."""
    path = Path(wheel_path)
    known = classes(zipfile.ZipFile(path))
    numbers: dict[str, int] = {}
    rows = {}
    for name in sorted(known):
        found = methods(name, known)
        if "__call__" in found:
            call = found["__call__"]
            args = ast.get_docstring(call) or ""
            args = args[args.index("Args:") :].partition("\nReturns")[0] if "Args:" in args else ""
            taken = written(call.args)
            rows[name] = {
                "parameters": [numbers.setdefault(each, len(numbers)) for each in taken],
                "undescribed": sorted({each.split(":")[0] for each in taken} - set(_ARGS.findall(args))),
                "code": code(found),
            }
    source = f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    head = {
        "written by": "scripts/host/diffusers_signatures.py",
        "source": source,
        "parameters": list(numbers),
    }
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items()]
    body = json.dumps(head, indent=0)[:-2] + ',\n"pipelines": {\n' + ",\n".join(lines) + "\n}}\n"
    Path(out).write_text(body, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
