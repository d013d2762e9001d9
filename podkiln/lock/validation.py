"""Lock files as they are read: strict JSON, and one shape for each kind of value that stands in a lock.

runtime.json, weights.json and layers.json are read here and nowhere else, so `lock --check`, a plan and a
bake refuse the same things in the same words. Locks are merged by git and edited by hand: what Python's json
module lets pass (a duplicate key, NaN) and what a later step would trip over is refused, with file
and key.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from podkiln.config import messages
from podkiln.config.messages import PatternType
from podkiln.config.model import LARGEST_FILE
from podkiln.errors import LockError
from podkiln.util import atomic, quoting, strict_json

if TYPE_CHECKING:
    from pathlib import Path

    Location = tuple[str | int, ...]

SCHEMA: Final = 1
"""Of all lock files: what is another number was written by another podkiln."""
DAMAGED: Final = "Restore it with git (`git checkout HEAD -- FILE`), or delete it and run `./build.py lock`."

MOST_BYTES: Final = 4 << 20  # of a lock file; that of 144 weights has 50 KB
_LONGEST_KEY: Final = 200  # of a dotted key in a sentence
_MOST_DIGITS: Final = 100  # of a number that is looked at, to be refused with its key
_MARKS: Final = re.compile(
    rb"^(<{7}|={7}|>{7}|\|{7})( |\r?$)", re.MULTILINE
)  # gitformat: merge.conflictStyle

Schema = Annotated[int, Field(ge=SCHEMA, le=SCHEMA)]  # not a Literal: for that, true is 1
Sha256 = Annotated[str, PatternType(r"^[0-9a-f]{64}$", "a sha256 of 64 lower-case hex digits")]
AnySha256 = Annotated[
    str, PatternType(r"^[0-9A-Fa-f]{64}$", "a sha256 of 64 hex digits"), AfterValidator(str.lower)
]
"""As hosts write it."""
Size = Annotated[int, Field(gt=0, le=LARGEST_FILE)]
Text = Annotated[str, PatternType(r"^[^\x00-\x1f\x7f]{1,4096}$", "a line of text")]


class Locked(BaseModel):
    """Base of what stands in a lock: frozen, no coercion, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


L = TypeVar("L", bound=Locked)


class UnreadableLockError(LockError):
    """A lock file is there and cannot be read; `newer`: because a newer podkiln wrote it."""

    def __init__(self, message: str, *, hint: str, newer: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.newer = newer


def read(path: Path, shape: type[L], *, hint: str) -> L:
    """Read a lock file.

    Args:
        path: The file.
        shape: What must stand in it.
        hint: What to do about one that is damaged.

    Raises FileNotFoundError, and UnreadableLockError for everything else that is not a lock.
    """
    try:
        content = content_of(path)
    except FileNotFoundError:
        raise
    except OSError as unreadable:
        raise _unreadable(path, f"{unreadable.strerror or unreadable}.", hint) from None
    except ValueError as malformed:  # a path that cannot be one
        raise _unreadable(path, f"{malformed}.", hint) from None
    return loads(content, path, shape, hint=hint)


def loads(content: bytes, name: object, shape: type[L], *, hint: str) -> L:
    """Return what stands in a lock file. `name` is what to call it. Raises UnreadableLockError."""
    try:
        data = parse(content)
    except ValueError as broken:
        _refuse_marks(name, content)
        raise _unreadable(name, f"{broken}.", hint) from None
    if not isinstance(data, dict):
        raise _unreadable(name, "it is not a JSON object.", hint)
    if "schema_version" not in data:
        raise _unreadable(name, f"schema_version is missing; it is {SCHEMA}.", hint)
    version = data["schema_version"]
    if isinstance(version, int) and not isinstance(version, bool) and version > SCHEMA:
        why = f"it has schema_version {quoting.shown(version)}, and this podkiln knows {SCHEMA}."
        raise _unreadable(name, why, "Update podkiln: a newer one wrote this lock.", newer=True)
    try:
        return shape.model_validate(data)
    except ValidationError as invalid:
        raise _unreadable(name, _first(invalid, shape), hint) from None


def _unreadable(name: object, why: str, hint: str, *, newer: bool = False) -> UnreadableLockError:
    return UnreadableLockError(f"The lock {name} cannot be read: {why}", hint=hint, newer=newer)


def refuse_merge(path: Path) -> None:
    """Raise UnreadableLockError for a text file in which git has left the marks of a conflict."""
    _refuse_marks(path, path.read_bytes())


def _refuse_marks(name: object, content: bytes) -> None:
    if merged := _MARKS.search(content):
        line = content.count(b"\n", 0, merged.start()) + 1
        hint = "Resolve the conflict, or take one side of it with `git checkout --ours` or `--theirs`."
        raise _unreadable(name, f"line {line} is the mark of a merge conflict.", hint) from None


def parse(content: bytes) -> Any:
    """Parse JSON strictly. Raises ValueError, in words that go on after "cannot be read: "."""
    try:
        return strict_json.parse(content.decode("utf-8-sig"), digits=_MOST_DIGITS)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except json.JSONDecodeError as broken:
        raise ValueError(f"line {broken.lineno} is not JSON ({broken.msg})") from None


def write(path: Path, document: Locked) -> bool:
    """Write a lock; returns whether it changed. Raises LockError for one too large to be read, OSError."""
    content = document.model_dump(mode="json")
    size = len(json.dumps(content, indent=2, ensure_ascii=False).encode())
    if size > MOST_BYTES:
        raise LockError(
            f"The lock {path} would have {size} bytes, and {MOST_BYTES} are read: it was left as it is.",
            hint="Choose a model with fewer files.",
        )
    return atomic.write_json(path, content)


def content_of(path: Path) -> bytes:
    """Return what stands in a file of a lock. Raises OSError, ValueError where it is none, or too large."""
    if not path.is_file():  # a FIFO would be waited for
        if path.exists():
            raise OSError(None, "it is not a file")
        if path.is_symlink():
            raise OSError(None, "it is a link that leads nowhere")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(None, f"it is larger than {MOST_BYTES >> 20} MiB")
    return content


def _first(invalid: ValidationError, shape: type[BaseModel]) -> str:
    """Return the sentence for the first thing that is wrong, with its key."""
    error = invalid.errors(include_url=False)[0]
    place: Location = tuple(step for step in error["loc"] if step != "[key]")
    key = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")
    sentence = messages.sentence(error, shape, place)
    printable = key.encode("unicode_escape", "backslashreplace").decode("ascii")
    return f"{printable[:_LONGEST_KEY]}: {sentence}" if key else sentence
