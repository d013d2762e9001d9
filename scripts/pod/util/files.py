"""Files that are written aside and renamed: a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import json

from pod.util import untrusted_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def replace(path: Path, text: str) -> None:
    """Write a text aside, then rename. Raises OSError."""
    with untrusted_files.replacing(path) as descriptor, open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode(errors="surrogateescape"))  # names of files may be any bytes


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside, then rename. Raises OSError."""
    replace(path, json.dumps(value, indent=1) + "\n")
