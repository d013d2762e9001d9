"""Files that are written aside and renamed, so that readers never see half of one."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write(path: Path, content: str | bytes) -> bool:
    """Write a file whole or not at all. Returns False when it already held just that.

    Raises OSError, which names the file.
    """
    content = content.encode() if isinstance(content, str) else content
    try:
        if path.is_file() and path.read_bytes() == content:  # a FIFO would be waited for
            return False
    except OSError:
        pass  # not there, or unreadable: it is written
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as failed:
        Path(name).unlink(missing_ok=True)
        if isinstance(failed, OSError):  # a full disk names no file, and a name aside says nothing to a user
            failed.filename, failed.filename2 = str(path), None
        raise
    return True


def write_json(path: Path, value: Any) -> bool:
    """Write JSON the one way that locks have it: indented, in the order given, a newline at the end."""
    return write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
