"""ComfyUI's command line: which flags there are, and whether what a user gives is one.

It reads words as ComfyUI's argparse does, with three differences, each on purpose: exact names only (argparse
guesses from abbreviations), the dead flags of old guides are dropped with a sentence, and a flag given twice
with two values is refused (argparse takes the last).
"""

from __future__ import annotations

import math
import os
import re
import shlex
from pathlib import Path

from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.util.dataclass import dataclass, field
from pod.util.env import nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Fewest and most values of an arity; argparse's nargs: none is store_true, then None, "?", "*", "+".
_ARITIES: dict[str, tuple[int, int | None]] = {
    "none": (0, 0),
    "one": (1, 1),
    "optional": (0, 1),
    "any": (0, None),
    "some": (1, None),
}
TYPES = ("str", "int", "float", "file", "folder")

_NEGATIVE_NUMBER = re.compile(r"-\d+$|-\d*\.\d+$")  # argparse takes these for values, not for flags


class RefusedError(PodError):
    """Words that ComfyUI would not take, or would take for something else than was meant."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ARGUMENTS_REFUSED)


@dataclass(frozen=True)
class Flag:
    """One flag; the keys are explained in variants/flags/: comfyui-*.yaml and annotations.yaml."""

    name: str
    arity: str = "none"
    type: str = "str"
    choices: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    most: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    group: str | None = None
    opposite: str | None = None
    repeat: bool = False
    note: str | None = None
    module: str | None = None
    package: str | None = None
    companion: str | None = None
    holds: str | None = None
    help: str = ""

    @property
    def bounds(self) -> tuple[int, int | None]:
        """Fewest and most values; None for no end."""
        fewest, most = _ARITIES[self.arity]
        return fewest, self.most if most is None else most


@dataclass(frozen=True)
class FlagUse:
    """A flag and the values that it was given."""

    flag: Flag
    values: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """Return it as words of a command line."""
        if len(self.values) == 1 and self.values[0].startswith("-"):
            return [f"{self.flag.name}={self.values[0]}"]
        return [self.flag.name, *self.values]

    def __str__(self) -> str:
        return shlex.join(self.words())


@dataclass(frozen=True)
class ParsedArgs:
    """What a command line gives, and the sentences about what was dropped from it."""

    given: tuple[FlagUse, ...] = ()
    notes: tuple[str, ...] = ()

    def value(self, name: str) -> str | None:
        """Return the first value of a flag; None when it is not given, or given without one."""
        return next((one.values[0] for one in self.given if one.flag.name == name and one.values), None)


@dataclass(frozen=True)
class Catalogue:
    """The flags of one ComfyUI version.

    `dead` maps flags of old guides to the sentence that is said when one is dropped; `later` names those that
    arrived in newer versions.
    """

    version: str
    flags: Mapping[str, Flag]
    dead: Mapping[str, str] = field(default_factory=dict)
    later: frozenset[str] = frozenset()

    def parse_text(
        self, text: str, where: str, exists: Callable[[str, str], bool] | None = None
    ) -> ParsedArgs:
        """Split a line as a shell does, then parse it. Raises RefusedError."""
        try:
            words = shlex.split(text)
        except ValueError:
            message = (
                f"{where}: a quotation mark is opened and not closed (or a backslash ends the line): {text}"
            )
            raise RefusedError(message) from None
        return self.parse(words, where, exists)

    def parse(
        self, words: Sequence[str], where: str, exists: Callable[[str, str], bool] | None = None
    ) -> ParsedArgs:
        """Check words against the catalogue. Raises RefusedError, a sentence that begins with `where`.

        Args:
            words: What would follow `main.py`.
            where: Whose words they are, for the sentences.
            exists: Tells whether a "file" or "folder" is there; by default this machine is asked.
        """
        given: list[FlagUse] = []
        notes: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if not self._is_flag(word):
                self._refuse_stray(word, given, where)
            name, _, value = word.partition("=")
            if name in self.dead:
                notes.append(f"{where}: {name} is dropped: {self.dead[name]}.")
                continue
            flag = self.flags.get(name) or self._refuse_unknown(name, where)
            values = (value,) if "=" in word else self._take_values(flag, rest)
            one = FlagUse(flag, values)
            _check_values(one, where, exists or _exists, explicit="=" in word)
            _add(one, given, notes, where)
        _check_companions(given, where)
        return ParsedArgs(tuple(given), tuple(notes))

    def _is_flag(self, word: str) -> bool:
        """Tell flags from values as argparse does: '-1' is a value, and so is what holds a space."""
        if not word.startswith("-") or word == "-":
            return False
        if word.partition("=")[0] in self.flags:
            return True
        return not _NEGATIVE_NUMBER.match(word) and " " not in word

    def _take_values(self, flag: Flag, rest: list[str]) -> tuple[str, ...]:
        # Not `bounds`: what is too many is refused later, not left lying as a stray word.
        _, most = _ARITIES[flag.arity]
        values: list[str] = []
        while rest and not self._is_flag(rest[0]) and (most is None or len(values) < most):
            values.append(rest.pop(0))
        return tuple(values)

    def _refuse_stray(self, word: str, given: Sequence[FlagUse], where: str) -> None:
        before = given[-1].flag if given else None
        if before is not None and before.arity == "none":
            raise RefusedError(
                f"{where}: {before.name} takes no value, but {word!r} follows it: remove {word!r}."
            )
        near = self._nearest(f"--{word}")
        hint = f"did you mean {near}?" if near else "remove it, or put the flag that it belongs to before it."
        raise RefusedError(f"{where}: {word!r} belongs to no flag: {hint}")

    def _refuse_unknown(self, name: str, where: str) -> Flag:
        if name in ("-h", "--help"):
            raise RefusedError(f"{where}: {name} would print ComfyUI's help and end it: remove it.")
        if name == "--":
            raise RefusedError(
                f"{where}: '--' only announces values without a flag, and ComfyUI takes none: remove it."
            )
        if name in self.later:
            raise RefusedError(
                f"{where}: {name} does not exist in ComfyUI {self.version}, it came later: remove it."
            )
        full = sorted(flag for flag in self.flags if flag.startswith(name)) if name.startswith("--") else []
        if len(full) == 1:
            raise RefusedError(f"{where}: {name} is not a full name: write {full[0]}.")
        if full and len(name) > len("--x"):
            raise RefusedError(f"{where}: {name} could be {', '.join(full)}: write one of them in full.")
        near = self._nearest(name)
        hint = f"did you mean {near}?" if near else "remove it (README, Flags, says where the list is)."
        raise RefusedError(f"{where}: ComfyUI {self.version} has no flag {name}: {hint}")

    def _nearest(self, name: str) -> str | None:
        return nearest(name.lower(), self.flags, cutoff=0.7)


def exclusive(one: Flag, other: Flag) -> bool:
    """Whether ComfyUI's parser refuses two different flags together."""
    return one.group is not None and one.group == other.group


def opposed(one: Flag, other: Flag) -> bool:
    """Whether ComfyUI takes both, but one undoes the other."""
    return other.name == one.opposite


def _add(one: FlagUse, given: list[FlagUse], notes: list[str], where: str) -> None:
    for other in given:
        if other.flag.name == one.flag.name and not one.flag.repeat:
            if other.values == one.values:
                notes.append(f"{where}: {one} is given twice; once is enough.")
                return
            raise RefusedError(f"{where}: {one.flag.name} is given twice ({other} and {one}): keep one.")
        if exclusive(one.flag, other.flag):
            raise RefusedError(
                f"{where}: {other.flag.name} and {one.flag.name} exclude each other: keep one."
            )
        if opposed(one.flag, other.flag):
            notes.append(f"{where}: {other.flag.name} and {one.flag.name} undo each other; one is enough.")
    given.append(one)


def _check_companions(given: Sequence[FlagUse], where: str) -> None:
    names = {one.flag.name for one in given}
    for one in given:
        other = one.flag.companion
        if other is not None and other not in names:
            raise RefusedError(
                f"{where}: {one.flag.name} does nothing without {other}: give both, or neither of them."
            )


def check_modules(given: Sequence[tuple[FlagUse, str]], has: Callable[[str], bool]) -> None:
    """Refuse flags for which a Python package is missing; `given` are flags and whose they are."""
    for one, source in given:
        module, package = one.flag.module, one.flag.package or one.flag.module
        if module is not None and not has(module):
            raise RefusedError(
                f"{source}: {one.flag.name} needs the Python package {package}, which neither this image nor "
                f"the volume has: remove {one.flag.name}, or use an image that has {package}."
            )


def check_folders(
    given: Sequence[FlagUse], where: str, exists: Callable[[str, str], bool] | None = None
) -> None:
    """Refuse folders that lack what ComfyUI lists at its start; the volume must be laid out by then."""
    for one in given:
        if one.flag.holds is not None:
            for value in one.values:
                inner = f"{value}/{one.flag.holds}"
                if not any((exists or _exists)(kind, inner) for kind in ("folder", "file")):
                    raise RefusedError(
                        f"{where}: {one.flag.name}: there is no {one.flag.holds!r} in {value!r} that can be "
                        "read, without which ComfyUI does not come up: make it, or name another folder."
                    )


def _check_values(one: FlagUse, where: str, exists: Callable[[str, str], bool], *, explicit: bool) -> None:
    flag, values = one.flag, one.values
    fewest, most = flag.bounds
    if explicit and most == 0:
        raise RefusedError(
            f"{where}: {flag.name} takes no value, so write {flag.name} without '={values[0]}'."
        )
    if len(values) < fewest:
        raise RefusedError(f"{where}: {flag.name} needs {_what(flag)} after it, and none follows.")
    if most is not None and len(values) > most:
        raise RefusedError(f"{where}: {flag.name} takes at most {most} values, but {len(values)} follow it.")
    if flag.first and values and values[0] not in flag.first:
        raise RefusedError(f"{where}: {flag.name}: {values[0]!r} is not one of {', '.join(flag.first)}.")
    for value in values:
        _check_value(flag, value, where, exists)


def _check_value(flag: Flag, value: str, where: str, exists: Callable[[str, str], bool]) -> None:
    if flag.choices and value not in flag.choices:
        raise RefusedError(f"{where}: {flag.name}: {value!r} is not one of {', '.join(flag.choices)}.")
    if flag.type in ("int", "float"):
        number = _number(flag.type, value)
        if number is None or not _within(flag, number):
            raise RefusedError(f"{where}: {flag.name} needs {_what(flag)}, not {value!r}.")
    if flag.type in ("file", "folder") and not exists(flag.type, value):
        raise RefusedError(
            f"{where}: {flag.name}: there is no {flag.type} {value!r} in this pod that can be read."
        )


def _number(kind: str, value: str) -> float | None:
    try:
        number = int(value) if kind == "int" else float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None  # float() also takes "nan" and "inf"


def _within(flag: Flag, number: float) -> bool:
    return (flag.minimum is None or number >= flag.minimum) and (
        flag.maximum is None or number <= flag.maximum
    )


def _what(flag: Flag) -> str:
    """Say what kind of value a flag wants."""
    if flag.choices:
        return f"one of {', '.join(flag.choices)}"
    kind = {"int": "a whole number", "float": "a number", "str": "a value"}.get(flag.type, f"a {flag.type}")
    if flag.minimum is not None and flag.maximum is not None:
        return f"{kind} from {flag.minimum:g} to {flag.maximum:g}"
    return kind if flag.minimum is None else f"{kind} of at least {flag.minimum:g}"


def _exists(kind: str, path: str) -> bool:
    found = Path(path).is_dir() if kind == "folder" else Path(path).is_file()
    return found and os.access(path, os.R_OK)
