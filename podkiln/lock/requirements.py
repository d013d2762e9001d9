"""The Python requirements of a variant: what is described, and the compiled ones dealt out to layers."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import re
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from podkiln.errors import LockError
from podkiln.util.quoting import cut

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant, PythonLayer

RELOCK = "Run `./build.py lock`, look at the difference, and commit it."
_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;\\]+)")


def inputs_digest(described: LoadedVariant) -> str:
    """Digest of everything described that the Python resolution depends on."""
    python = described.spec.runtime.python
    layers = [{"name": layer.name, "packages": layer.packages} for layer in python.layers]
    described_inputs: list[object] = [
        python.version,
        python.platform,
        _wanted(python_file(described)),
        layers,
    ]
    if jupyter := jupyter_file(described):
        described_inputs.append(_wanted(jupyter))
    text = json.dumps(described_inputs, sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _wanted(requirements: Path) -> list[str]:
    lines = [line.split(" #")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    return sorted(line for line in lines if line and not line.startswith("#"))


def python_file(described: LoadedVariant) -> Path:
    """Return the requirements file that a variant names, relative to the description that names it."""
    return _beside(
        described, ("runtime", "python", "requirements"), described.spec.runtime.python.requirements
    )


def jupyter_file(described: LoadedVariant) -> Path | None:
    """Return the requirements file of JupyterLab's environment; None where the image has none."""
    named = described.spec.runtime.jupyter
    return _beside(described, ("runtime", "jupyter"), named) if named else None


def _beside(described: LoadedVariant, location: tuple[str, ...], named: str) -> Path:
    owner = next((file for file in described.chain if file.has(location)), described.chain[-1])
    path = owner.path.parent / named
    with contextlib.suppress(OSError):  # a name that no file system takes
        if path.is_file():
            return path
    raise owner.error(location, f"there is no file {cut(str(path))}.")


def assign(requirements: str, layers: Iterable[PythonLayer]) -> dict[str, str]:
    """Split a compiled requirements file by layer; returns each layer's own requirements text.

    A package goes to the first layer that names it; to one that names it by `*` only when no other does.
    """
    blocks = pinned_blocks(requirements)
    dealt: dict[str, list[str]] = {layer.name: [] for layer in layers}
    for name, block in blocks.items():
        dealt[_layer_of(name, layers)].append(block)
    return {name: "\n".join(texts) + "\n" if texts else "" for name, texts in dealt.items()}


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


def pins(text: str) -> dict[str, str]:
    """Return the versions that a requirements file pins, by canonical name; other lines are skipped."""
    found = map(_PINNED.match, text.splitlines())
    return {canonicalize_name(each["name"]): each["version"] for each in found if each}


def _layer_of(name: str, layers: Iterable[PythonLayer]) -> str:
    by_rank = sorted(layers, key=lambda layer: layer.packages == ("*",))
    for layer in by_rank:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in layer.packages):
            return layer.name
    raise LockError(
        f"No Python layer of the description takes the package {name}.", hint="Add a layer for `*`."
    )
