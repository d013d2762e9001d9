"""What a path that was given leads to, in words."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

ABSENT: Final = "does not exist"


def problem(path: Path) -> str | None:
    """Return why a path is no file, as what follows its name in a sentence; None if it is one."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "is a link that leads nowhere" if path.is_symlink() else ABSENT
    except ValueError:  # a zero byte
        return ABSENT
    except OSError as failed:
        if failed.errno == errno.ELOOP:
            return "is a link that leads back to itself"
        return ABSENT if failed.errno == errno.ENAMETOOLONG else f"cannot be read ({failed.strerror})"
    if path.is_dir():
        return "is a folder"
    return None if path.is_file() else "is no regular file"
