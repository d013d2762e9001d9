"""uv: how it is asked to resolve, and what it says where it cannot."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from podkiln.config.fields import requirement
from podkiln.errors import CommandError, LockError
from podkiln.util import process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podkiln.config.runtime import Python

# uv's words: of an extra, of a name that the index has not, and what comes before a reason.
_NO_EXTRA = re.compile(r"The package `([\w.-]+)==(\S+)` does not have an extra named `([\w.-]+)`")
_UNKNOWN = re.compile(r"(\S+) was not found in the package registry")
_BEFORE_REASON = re.compile(r"^.*?cause: ")


class UnresolvedError(LockError):
    """uv found no way to have it all. `reason` is uv's own, on one line."""

    def __init__(self, message: str, reason: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason

    @property
    def unknown_package(self) -> str | None:
        """The package that the index has not, if that is it."""
        found = _UNKNOWN.search(self.reason)
        return found[1] if found else None

    @property
    def cause(self) -> str:
        """The reason without uv's account of how it came to it, and without its hint."""
        return _BEFORE_REASON.sub("", self.reason).partition(" hint: ")[0]


def compile_pins(source: Path, target: Path, python: Python, options: Sequence[str], *, asked: Path) -> str:
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
        # Not run where a stranger's pyproject.toml could have a say.
        return process.run(argv, cwd=target.parent).stderr
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


def look_up(pinned: Path, folder: Path, python: Python, *, asked: Path) -> list[dict[str, Any]]:
    """Return what the index has of the packages that a file pins: the `packages` of a pylock.toml.

    Args:
        pinned: The file.
        folder: A temporary one, for uv's answer.
        python: The interpreter and platform.
        asked: The file that errors name.
    """
    found = folder / "pylock.toml"
    # Of the formats that uv writes, only this one says which hash belongs to which wheel.
    options = ["--no-deps", "--generate-hashes", "--format=pylock.toml"]
    compile_pins(pinned, found, python, options, asked=asked)
    packages: list[dict[str, Any]] = tomllib.loads(found.read_text(encoding="utf-8"))["packages"]
    return packages


def refuse_unknown_extras(asked: Sequence[str], said: str) -> None:
    """Raise UnresolvedError for an extra that is asked for and that its package has not: uv only warns."""
    wanted = [requirement(line) for line in asked]
    extras = {
        (canonicalize_name(each.name), canonicalize_name(one)) for each in wanted for one in each.extras
    }
    for name, version, extra in _NO_EXTRA.findall(said):
        if (canonicalize_name(name), canonicalize_name(extra)) in extras:
            reason = f"{name} {version} has no extra {extra}."
            raise UnresolvedError(reason, reason, "Take one of its extras, or none (its page in the index).")
