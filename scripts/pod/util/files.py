"""Files that are written aside and renamed: a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import json
import os

from pod.util import untrusted_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def replace(path: Path, text: str) -> None:
    """Write aside, then rename: a reader sees the old file or the new one, never half of one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8", errors="surrogateescape")  # names of files may be any bytes
    aside.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside, then rename. Raises OSError."""
    with untrusted_files.replacing(path) as descriptor, open(descriptor, "wb", closefd=False) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())
