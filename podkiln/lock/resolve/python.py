"""The Python part of a lock: uv resolves, and what it found is dealt out to the image's layers.

One wheel a package is locked, the one that uv itself would choose: with all of a release's hashes, an index
that lacks a wheel would silently give another image.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from podkiln.config import python_requirements
from podkiln.errors import DescriptionError, LockError
from podkiln.lock import requirements
from podkiln.lock.resolve import uv
from podkiln.lock.resolve.wheels import Wheel, best, of_package, platform_tags
from podkiln.lock.schema import LockedLayer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podkiln.config.runtime import Python
    from podkiln.config.variant import LoadedVariant


def layer_file(name: str) -> str:
    """Return where a layer's requirements lie in the folder of the runtime's lock."""
    return f"python/{name}.txt"


@dataclass(frozen=True)
class CompiledLayer:
    """A requirements file, and the bytes of its wheels; None where the index does not tell them."""

    text: str
    wheel_bytes: int | None = None

    @classmethod
    def of(cls, text: str, wheels: Iterable[Wheel]) -> CompiledLayer:
        """Add up the wheels whose packages the text pins."""
        pinned = requirements.known_pins([text])
        sizes = [each.size for each in wheels if canonicalize_name(each.package) in pinned]
        return cls(text, None if None in sizes else sum(size or 0 for size in sizes))

    def locked(self, name: str, file: str) -> LockedLayer:
        """Return what is locked of it, under a name and in a file."""
        return LockedLayer.of(name, file, self.text, self.wheel_bytes)


def compile_layers(
    described: LoadedVariant, pins: dict[str, str], upgrade: Sequence[str]
) -> dict[str, CompiledLayer]:
    """Resolve a variant's requirements. Returns each layer's requirements file, by layer name.

    Args:
        described: The variant.
        pins: Versions by package that are kept where they still fit.
        upgrade: Packages whose pin is given up, or `all`.

    Raises LockError: uv cannot resolve it, or a package has no wheel with a hash for the platform.
    """
    python = described.spec.runtime.python
    asked, text = python_requirements.path(described), python_requirements.composed(described)
    wheels = resolve(asked, python, pins, upgrade, requirements.constraints(described), text=text)
    dealt = requirements.assign(as_text(wheels), python.layers)
    compiled: dict[str, CompiledLayer] = {}
    for number, layer in enumerate(python.layers):
        if not dealt[layer.name]:
            raise _empty_layer(described, number)
        # No more than the name: a reworded description must not make another lock.
        text = header(f"The Python layer {layer.name}.") + dealt[layer.name]
        compiled[layer.name] = CompiledLayer.of(text, wheels)
    return compiled


def _empty_layer(described: LoadedVariant, number: int) -> DescriptionError:
    """Make the error for a layer that gets no package, where what has to be changed is written."""
    asked, layers = ("runtime", "python", "requirements"), ("runtime", "python", "layers")
    name = described.spec.runtime.python.layers[number].name
    if described.owner(asked) is described.owner(layers):
        return described.error(
            (*layers, number), f"no package that was resolved belongs to the layer {name!r}."
        )
    where = f"{described.owner(layers).path.name}:{described.owner(layers).line((*layers, number))}"
    return described.error(
        asked,
        f"this file replaces the parent's, and none of its packages belongs to the layer {name!r} ({where}).",
        hint="Copy the parent's requirements file and add your packages to the copy "
        "(docs/how-to/python-packages.md), or write `runtime.python.layers` anew.",
    )


def compile_jupyter(
    asked: Path, python: Python, pins: dict[str, str], upgrade: Sequence[str]
) -> CompiledLayer:
    """Resolve JupyterLab's own environment. Returns its requirements file."""
    wheels = resolve(asked, python, pins, upgrade)
    text = header("JupyterLab, in an environment of its own.") + as_text(wheels)
    return CompiledLayer.of(text, wheels)


def compile_uv(python: Python, pins: dict[str, str], upgrade: Sequence[str]) -> CompiledLayer:
    """Resolve uv itself, the installer of the image's build. Returns its requirements file."""
    with tempfile.TemporaryDirectory(prefix="podkiln-lock-") as scratch:
        asked = Path(scratch, "uv.in")
        asked.write_text("uv\n", encoding="utf-8")
        wheels = resolve(asked, python, pins, upgrade)
    text = header("uv, which installs the Python layers when the image is built.") + as_text(wheels)
    return CompiledLayer.of(text, wheels)


def resolve(
    asked: Path,
    python: Python,
    pins: dict[str, str],
    upgrade: Sequence[str],
    constraints: Sequence[str] = (),
    *,
    text: str | None = None,
) -> list[Wheel]:
    """Resolve a requirements file for an interpreter and platform: one wheel a package, by package name.

    `constraints` are requirements that hold for what is asked for, and ask for nothing themselves. `text`:
    what is resolved in the place of the file, which names it in errors. Index, mirrors and certificates are
    those that uv is configured with (UV_DEFAULT_INDEX, SSL_CERT_FILE).
    """
    with tempfile.TemporaryDirectory(prefix="podkiln-lock-") as scratch:
        folder = Path(scratch)
        pinned = folder / "pinned.txt"
        pinned.write_text(_pinning(pins), encoding="utf-8")
        (folder / "constraints.txt").write_text(
            "".join(f"{line}\n" for line in constraints), encoding="utf-8"
        )
        source = asked
        if text is not None:
            source = folder / "asked.in"
            source.write_text(text, encoding="utf-8")
        options = ["--constraint=constraints.txt"] if constraints else []
        uv.compile_pins(source, pinned, python, [*options, *_given_up(upgrade)], asked=asked)
        return _choose(pinned, python, asked)


def resolve_added(
    asked: Sequence[str],
    python: Python,
    locked: Mapping[str, str],
    pins: Mapping[str, str],
    upgrade: Sequence[str],
    *,
    binding: bool = True,
) -> list[Wheel]:
    """Resolve requirements onto packages that are there. Returns the wheels that come to them.

    Args and errors as those of `versions_added`; `upgrade`: packages whose pin is given up, or `all`.
    """
    kept = {} if "all" in upgrade else {name: each for name, each in pins.items() if name not in upgrade}
    return wheels_of(versions_added(asked, python, locked, kept, binding=binding), python)


def versions_added(
    asked: Sequence[str],
    python: Python,
    locked: Mapping[str, str],
    pins: Mapping[str, str],
    *,
    binding: bool = True,
    never: Sequence[str] = (),
) -> dict[str, str]:
    """Resolve requirements onto packages that are there. Returns the version of each package that comes.

    Args:
        asked: Requirements, a line each.
        python: The interpreter and platform.
        locked: Version by package of what is there.
        pins: Versions by package that are kept where they still fit.
        binding: False: what is there is only preferred, and returned where it would change.
        never: Packages that are left out, whoever asks for them.

    Raises UnresolvedError.
    """
    with tempfile.TemporaryDirectory(prefix="podkiln-lock-") as scratch:
        folder = Path(scratch)
        source, there, pinned, rules = (
            folder / name for name in ("add.in", "there.txt", "add.txt", "overrides.txt")
        )
        source.write_text("".join(f"{line}\n" for line in asked), encoding="utf-8")
        there.write_text(_pinning(locked), encoding="utf-8")
        pinned.write_text(_pinning(pins if binding else {**locked, **pins}), encoding="utf-8")
        rules.write_text("".join(f"{name}; sys_platform == 'never'\n" for name in never), encoding="utf-8")
        options = [f"--constraint={there}"] if binding else []
        options += [f"--override={rules}"] if never else []
        said = uv.compile_pins(source, pinned, python, options, asked=source)
        uv.refuse_unknown_extras(asked, said)
        found = requirements.known_pins([pinned.read_text(encoding="utf-8")])
    return {name: version for name, version in found.items() if locked.get(name) != version}


def wheels_of(pins: Mapping[str, str], python: Python) -> list[Wheel]:
    """Return the wheel of each package that is pinned, by package name. Raises UnresolvedError, LockError."""
    if not pins:
        return []
    with tempfile.TemporaryDirectory(prefix="podkiln-lock-") as scratch:
        new = Path(scratch, "new.txt")
        new.write_text(_pinning(pins), encoding="utf-8")
        return _choose(new, python, new)


def _given_up(upgrade: Sequence[str]) -> list[str]:
    return ["--upgrade"] if "all" in upgrade else [f"--upgrade-package={name}" for name in upgrade]


def _pinning(pins: Mapping[str, str]) -> str:
    return "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))


def _choose(pinned: Path, python: Python, asked: Path) -> list[Wheel]:
    """Choose a wheel for each package that a file pins, by package name."""
    packages = uv.look_up(pinned, pinned.parent, python, asked=asked)
    order = {tag: rank for rank, tag in enumerate(platform_tags(python.version, python.platform))}
    return [best(package, order) for package in sorted(packages, key=lambda each: each["name"])]


def locate(locked: Path, python: Python) -> list[Wheel]:
    """Ask the index where the wheels of a locked requirements file are, by package name.

    Raises LockError: the index cannot be asked, or has one of them no more.
    """
    wanted = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", locked.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory(prefix="podkiln-lock-") as scratch:
        packages = uv.look_up(locked, Path(scratch), python, asked=locked)
    wheels = [wheel for package in packages for wheel in of_package(package) if wheel.sha256 in wanted]
    if lacking := wanted - {each.sha256 for each in wheels}:
        raise LockError(f"{locked}: the package index has no wheel with the sha256 {min(lacking)}.")
    return sorted({each.sha256: each for each in wheels}.values(), key=lambda each: each.package)


def as_text(wheels: Iterable[Wheel]) -> str:
    """Return a requirements file, without its header."""
    return "".join(f"{each.package}=={each.version} \\\n    --hash=sha256:{each.sha256}\n" for each in wheels)


def header(title: str) -> str:
    """Return the first lines of a requirements file."""
    return f"# {title}\n# Generated by `./build.py lock`; do not edit.\n"
