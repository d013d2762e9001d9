"""The Python requirements of a variant: what is described, and the compiled ones dealt out to layers."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from podkiln.config import python_requirements
from podkiln.errors import LockError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from podkiln.config.runtime import PythonLayer
    from podkiln.config.variant import LoadedVariant

RELOCK = "Run `./build.py lock`, look at the difference, and commit it."
_NAMED = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)\s*(?P<rest>(?:[=<>!~@\[]|===).*)?$")
_WRITTEN = re.compile(r"(#.*|[A-Za-z0-9][\w.-]*==[A-Za-z0-9.!+_-]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?)?")
_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;\\]+)")


def inputs_digest(described: LoadedVariant) -> str:
    """Digest of everything described that the Python resolution depends on."""
    python = described.spec.runtime.python
    layers = [{"name": layer.name, "packages": layer.packages} for layer in python.layers]
    described_inputs: list[object] = [
        python.version,
        python.platform,
        sorted({*python_requirements.lines(described), *constraints(described)}),
        layers,
    ]
    if jupyter := jupyter_file(described):
        described_inputs.append(sorted(python_requirements.plain_lines(jupyter)))
    text = json.dumps(described_inputs, sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def constraints(described: LoadedVariant) -> tuple[str, ...]:
    """Return the versions that the CUDA release asks for, but of what the variant's own requirements pin."""
    wanted = {canonicalize_name(found["name"]): found["rest"] for found in _named(described)}
    return tuple(
        line
        for line in described.release.torch
        for found in [_NAMED.match(line)]
        if found and not wanted.get(canonicalize_name(found["name"]))
    )


def _named(described: LoadedVariant) -> list[re.Match[str]]:
    """Return the requirements of a variant that begin with a name; one that is pinned comes last."""
    found = [match for line in python_requirements.lines(described) if (match := _NAMED.match(line))]
    return sorted(found, key=lambda match: bool(match["rest"]))


def jupyter_file(described: LoadedVariant) -> Path | None:
    """Return the requirements file of JupyterLab's environment; None where the image has none."""
    named = described.spec.runtime.jupyter
    if not named:
        return None
    return python_requirements.beside(described, ("runtime", "jupyter"), named)


def assign(requirements: str, layers: Iterable[PythonLayer]) -> dict[str, str]:
    """Split a compiled requirements file by layer; returns each layer's own requirements text.

    A package goes to the first layer that names it; to one that names it by `*` only when no other does.
    """
    blocks = pinned_blocks(requirements)
    dealt: dict[str, list[str]] = {layer.name: [] for layer in layers}
    for name, block in blocks.items():
        dealt[_layer_of(name, layers)].append(block)
    return {name: "\n".join(texts) + "\n" if texts else "" for name, texts in dealt.items()}


def known_pins(texts: Iterable[str]) -> dict[str, str]:
    """Return the versions that requirements files pin, by package; other lines are skipped."""
    lines = (_PINNED.match(line) for text in texts for line in text.splitlines())
    return {canonicalize_name(line["name"]): line["version"] for line in lines if line}


def foreign_line(text: str) -> int | None:
    """Return the number of the first line that is no pin, hash or comment: an option of pip's, a URL."""
    lines = enumerate(text.splitlines(), start=1)
    return next((number for number, line in lines if not _WRITTEN.fullmatch(line)), None)


def pinned_blocks(requirements: str) -> dict[str, str]:
    """Return each package's own lines, by canonical name. Raises LockError for one without a hash."""
    blocks: dict[str, list[str]] = {}
    current: list[str] = []
    for line in requirements.splitlines():
        pinned = _PINNED.match(line)
        if pinned:
            current = blocks.setdefault(canonicalize_name(pinned["name"]), [])
        if line.strip() and not line.lstrip().startswith("#"):
            current.append(line)
    for name, lines in blocks.items():
        if not any("--hash=sha256:" in line for line in lines):
            raise LockError(f"The package {name} has no hash in the lock.", hint=RELOCK)
    return {name: "\n".join(lines) for name, lines in blocks.items()}


def _layer_of(name: str, layers: Iterable[PythonLayer]) -> str:
    by_rank = sorted(layers, key=lambda layer: layer.packages == ("*",))
    for layer in by_rank:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in layer.packages):
            return layer.name
    raise LockError(
        f"No Python layer of the description takes the package {name}.", hint="Add a layer for `*`."
    )
