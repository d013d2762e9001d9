"""podkiln's own files: JSON that is read whole or refused in one sentence, and files that are written aside.

What is written is renamed at the end: a reader sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import json

from pod.errors import DATA_UNREADABLE, PodError
from pod.util import untrusted_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any, TypeVar

    T = TypeVar("T")

SCHEMA = 1  # of the image's data, as the builder writes it


def read_image_data(path: Path, make: Callable[[Any], T]) -> T:
    """Return what `make` makes of one of the image's JSON files: flags.json, models.json. Raises PodError."""

    def checked(data: Any) -> T:
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']}, and {SCHEMA} is known")
        return make(data)

    return read_json(path, checked, "rebuild the image")


def read_json(path: Path, make: Callable[[Any], T], remedy: str) -> T:
    """Return what `make` makes of a JSON file; raises PodError, which says what to do about it.

    `make` may raise ValueError, LookupError, TypeError and AttributeError for data that it cannot use.
    """
    try:
        return make(json.loads(path.read_bytes()))
    except OSError as error:
        raise PodError(f"{path} cannot be read ({error.strerror}): {remedy}.", DATA_UNREADABLE) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        message = f"{path} is damaged or of another podkiln ({error!r}): {remedy}."
        raise PodError(message, DATA_UNREADABLE) from None


def recall(path: Path) -> dict[str, Any]:
    """Return the JSON object that another process of this pod wrote; nothing where none is there."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def replace(path: Path, text: str) -> None:
    """Write a text aside, then rename. Raises OSError."""
    with untrusted_files.replacing(path) as descriptor, open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode(errors="surrogateescape"))  # names of files may be any bytes


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside, then rename. Raises OSError."""
    replace(path, json.dumps(value, indent=1) + "\n")
