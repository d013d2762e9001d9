"""The Python part of a lock: uv resolves, and what it found is dealt out to the image's layers.

One wheel a package is locked, the one that uv itself would choose: with all of a release's hashes, an index
that lacks a wheel would silently give another image.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from podkiln.config import python_requirements
from podkiln.config.fields import requirement
from podkiln.errors import CommandError, DescriptionError, LockError
from podkiln.lock import requirements
from podkiln.util import process

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podkiln.config.runtime import Python
    from podkiln.config.variant import LoadedVariant

_OLDEST_GLIBC = {"x86_64": 5, "aarch64": 17}  # PEP 600: the first manylinux of each machine
# uv's words.
_NO_EXTRA = re.compile(r"The package `([\w.-]+)==(\S+)` does not have an extra named `([\w.-]+)`")
_LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


class UnresolvedError(LockError):
    """uv found no way to have it all. `reason` is uv's own, on one line."""

    def __init__(self, message: str, reason: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


@dataclass(frozen=True)
class Wheel:
    """One locked wheel; its size in bytes, where the index tells it."""

    package: str
    version: str
    url: str
    sha256: str
    size: int | None = None

    @property
    def filename(self) -> str:
        """The wheel's file name, which holds its tags."""
        return unquote(PurePosixPath(urlsplit(self.url).path).name)


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
        _uv(source, pinned, python, [*options, *_given_up(upgrade)], asked=asked)
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
        said = _uv(source, pinned, python, options, asked=source)
        _refuse_unknown_extras(asked, said)
        found = requirements.known_pins([pinned.read_text(encoding="utf-8")])
    return {name: version for name, version in found.items() if locked.get(name) != version}


def _refuse_unknown_extras(asked: Sequence[str], said: str) -> None:
    """Raise UnresolvedError for an extra that is asked for and that its package has not: uv only warns."""
    wanted = [requirement(line) for line in asked]
    extras = {
        (canonicalize_name(each.name), canonicalize_name(one)) for each in wanted for one in each.extras
    }
    for name, version, extra in _NO_EXTRA.findall(said):
        if (canonicalize_name(name), canonicalize_name(extra)) in extras:
            reason = f"{name} {version} has no extra {extra}."
            raise UnresolvedError(reason, reason, "Take one of its extras, or none (its page in the index).")


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
    found = pinned.with_name("pylock.toml")
    # Of the formats that uv writes, only this one says which hash belongs to which wheel.
    _uv(pinned, found, python, ["--no-deps", "--generate-hashes", "--format=pylock.toml"], asked=asked)
    answer = tomllib.loads(found.read_text(encoding="utf-8"))
    order = {tag: rank for rank, tag in enumerate(platform_tags(python.version, python.platform))}
    return [_best(package, order) for package in sorted(answer["packages"], key=lambda each: each["name"])]


def locate(locked: Path, python: Python) -> list[Wheel]:
    """Ask the index where the wheels of a locked requirements file are, by package name.

    Raises LockError: the index cannot be asked, or has one of them no more.
    """
    wanted = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", locked.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory(prefix="podkiln-lock-") as scratch:
        found = Path(scratch, "pylock.toml")
        _uv(locked, found, python, ["--no-deps", "--generate-hashes", "--format=pylock.toml"], asked=locked)
        answer = tomllib.loads(found.read_text(encoding="utf-8"))
    wheels = [wheel for package in answer["packages"] for wheel in _wheels(package) if wheel.sha256 in wanted]
    if lacking := wanted - {each.sha256 for each in wheels}:
        raise LockError(f"{locked}: the package index has no wheel with the sha256 {min(lacking)}.")
    return sorted({each.sha256: each for each in wheels}.values(), key=lambda each: each.package)


def platform_tags(version: str, platform: str) -> Iterable[Tag]:
    """Return the wheel tags that fit an interpreter on a platform, the best first (PEP 425, PEP 600)."""
    parsed = re.fullmatch(r"(x86_64|aarch64)-manylinux_2_(\d+)", platform)
    if parsed is None:
        raise LockError(f"{platform!r} is not a platform that podkiln knows.", hint="x86_64-manylinux_2_28")
    machine, newest = parsed[1], int(parsed[2])
    platforms: list[str] = []
    for minor in range(newest, _OLDEST_GLIBC[machine] - 1, -1):
        platforms.append(f"manylinux_2_{minor}_{machine}")
        platforms += [f"{_LEGACY[minor]}_{machine}"] if minor in _LEGACY else []
    platforms.append(f"linux_{machine}")
    numbers = tuple(int(part) for part in version.split(".")[:2])
    yield from cpython_tags(numbers, platforms=platforms)
    yield from compatible_tags(numbers, "cp" + "".join(map(str, numbers)), platforms)


def _wheels(package: dict[str, Any]) -> list[Wheel]:
    """Return the wheels that a pylock.toml has of a package."""
    return [
        Wheel(
            package["name"],
            package["version"],
            each.get("url") or each.get("path", ""),
            each["hashes"].get("sha256", ""),
            each.get("size"),
        )
        for each in package.get("wheels", ())
    ]


def _best(package: dict[str, Any], order: dict[Tag, int]) -> Wheel:
    """Choose among a release's wheels as installers do: by rank of the tags, then by build number."""
    ranked = []
    for wheel in _wheels(package):
        _, _, build, tags = parse_wheel_filename(wheel.filename)
        fitting = [order[tag] for tag in tags if tag in order]
        if fitting and wheel.sha256:
            ranked.append((-min(fitting), build, wheel))
    if not ranked:
        name, version = package["name"], package["version"]
        raise LockError(f"The package {name} {version} has no wheel with a sha256 for this platform.")
    return max(ranked, key=lambda each: each[:2])[2]


def as_text(wheels: Iterable[Wheel]) -> str:
    """Return a requirements file, without its header."""
    return "".join(f"{each.package}=={each.version} \\\n    --hash=sha256:{each.sha256}\n" for each in wheels)


def header(title: str) -> str:
    """Return the first lines of a requirements file."""
    return f"# {title}\n# Generated by `./build.py lock`; do not edit.\n"


def _uv(source: Path, target: Path, python: Python, options: Sequence[str], *, asked: Path) -> str:
    """Run `uv pip compile`; pins that stand in the target are kept unless the options give them up.

    Returns what it says beside the result.
    """
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv") or "uv"
    argv = [uv, "pip", "compile", str(source.resolve()), f"--output-file={target}", *options]
    argv += [f"--python-version={python.version}", f"--python-platform={python.platform}"]
    argv += ["--only-binary=:all:", "--no-header", "--no-annotate"]
    argv += ["--python", sys.executable]  # builds nothing: that spares a search for the other version
    try:
        return process.run(
            argv, cwd=target.parent
        ).stderr  # not where a stranger's pyproject.toml could have a say
    except CommandError as failed:
        said = [each for each in str(failed).splitlines()[1:] if not each.startswith("warning: ")]
        reason = " ".join(" ".join(said).split()) or str(failed)
        hint = "Correct the requirements, or see that the package index can be reached (UV_DEFAULT_INDEX)."
        if "UnknownIssuer" in reason:
            hint = "Name the authorities to trust: --ca-bundle /etc/ssl/certs/ca-certificates.crt."
        raise UnresolvedError(
            f"{asked}: uv could not resolve it for Python {python.version} on {python.platform}: {reason}",
            reason,
            hint,
        ) from None
