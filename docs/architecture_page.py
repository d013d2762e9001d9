# ruff: noqa: INP001 - a script beside the pages that it writes
"""The page of the architecture, from the code: packages in their order, their purpose, who imports whom."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ABOUT = """\
# Architecture

podkiln has two halves. `podkiln/` runs on the builder's machine; `scripts/pod/` is copied into the image
and runs there, with the standard library alone. In each, data flows one way: a package imports only what
stands before it in the tables below, and a test keeps it so. What is drawn here is read off the imports.

A variant's way: `options` say what is asked for; `variants/*.yaml` and `variants/models/*.yaml` are read
and checked by `config`; the `lock` says what each input is, by digest, commit or hash; `plan` decides,
without moving a byte, and every refusal happens there; `render` writes Dockerfile, start.sh, bake file and
data; `build` has BuildKit make the runtime's layers; `weights` streams models into layers of their own, into
a `registry` or an `oci` layout on disk; `verify` compares what a registry holds with all of that;
`pipeline` runs these stages for `./build.py`, and `cli` reads the command line.

A pod's way: start.sh calls `commands`. `decision` asks the `hardware`, the `volume` and the environment
and chooses `flags`; the `supervisor` starts ComfyUI and keeps it; `services` are the door before
ComfyUI, sshd and Jupyter; `downloads` fetches the models that `resolve` has found for the references in
`model_refs`.

"""
PODKILN = "## The builder: podkiln/\n\n"
POD = "\n## The pod: scripts/pod/\n\n"
NOTE = (
    "\nAn arrow leads from a package to one that it imports; what follows from other arrows is left out.\n\n"
)


def page(root: Path) -> str:
    """Return the page as Markdown, with a diagram for each half."""
    return ABOUT + PODKILN + half(root / "podkiln") + POD + half(root / "scripts" / "pod")


def half(package: Path) -> str:
    """Return the table of the packages inside of one, and the diagram of their imports."""
    edges = imports(package)
    order = sorted(edges, key=lambda name: (height(name, edges), name))
    rows = "".join(f"| `{name}` | {purpose(package, name)} |\n" for name in order)
    drawn = "".join(
        f"    {name} --> {used}\n" for name in order for used in sorted(direct(name, edges), key=order.index)
    )
    return f"| package | what it is for |\n| --- | --- |\n{rows}{NOTE}```mermaid\ngraph TD\n{drawn}```\n"


def imports(package: Path) -> dict[str, set[str]]:
    """Return the members of a package, and which other members each imports."""
    edges: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        own = path.relative_to(package).parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        found = edges.setdefault(own, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                head, *rest = node.module.split(".")
                if head == package.name:
                    found |= set(rest[:1]) or {alias.name for alias in node.names}
    return {name: {used for used in found if used in edges and used != name} for name, found in edges.items()}


def height(name: str, edges: dict[str, set[str]]) -> int:
    """Return on which floor a package stands: above all that it imports."""
    return 1 + max((height(used, edges) for used in edges[name]), default=0)


def direct(name: str, edges: dict[str, set[str]]) -> set[str]:
    """Return what a package imports, without what it reaches through another of these."""
    return {
        used
        for used in edges[name]
        if not any(used in reached(other, edges) for other in edges[name] - {used})
    }


def reached(name: str, edges: dict[str, set[str]]) -> set[str]:
    """Return all that a package imports, itself or through others."""
    return edges[name].union(*(reached(used, edges) for used in edges[name]))


def purpose(package: Path, name: str) -> str:
    """Return the first sentence of a package's or module's docstring."""
    path = package / name / "__init__.py"
    tree = ast.parse((path if path.exists() else package / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n")[0]
