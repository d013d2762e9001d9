"""Apply unified diffs to a tree: every hunk at its own line, or not at all.

Usage: apply_patches.py NODE TREE PATCHES

PATCHES is a folder; they are applied in the order of their names. What does not fit ends the build with one
sentence. Format: https://www.gnu.org/software/diffutils/manual/html_node/Detailed-Unified.html.
"""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path
from typing import NamedTuple

LARGEST = 1 << 20  # bytes of a patch
LARGEST_FILE = 16 << 20  # bytes of a file that is patched
_LONGEST_NAME, _LONGEST_PATH = 255, 1024  # bytes
_MOST_DIGITS = 9  # of a line's number
_LONGEST_SHOWN = 100  # characters of a name in a sentence
HUNK = re.compile(rb"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
# What git writes between the hunks of one file and the next file. Of an addition, a removal and a new name it
# writes more, and none of them is done.
_NEWLINE = b"\n"
_BETWEEN = (b"diff ", b"index ")
_SIGNATURE = b"-- "  # of a mail, as `git format-patch` writes one


class PatchError(Exception):
    """A patch that does not apply; the message goes on after its name."""


class Hunk(NamedTuple):
    """A change: `old` lines in the place of which `new` ones come, the first being number `at`, from 0."""

    at: int
    old: list[bytes]
    new: list[tuple[bytes, int | None]]
    """Each with its number in `old` where it stays as it is."""


def files_of(patch: bytes) -> list[tuple[str, list[Hunk]]]:
    """Return the files that a patch changes, each with its hunks. Raises PatchError."""
    if len(patch) > LARGEST:
        raise PatchError(f"is larger than {LARGEST >> 20} MiB")
    try:
        patch.decode()
    except UnicodeDecodeError as broken:  # JSON, in which the pod gets it, holds text alone
        raise PatchError(f"is no UTF-8 text: its line {patch.count(_NEWLINE, 0, broken.start) + 1}") from None
    found: list[tuple[str, list[Hunk]]] = []
    lines = _lines(patch)
    number = 0
    while number < len(lines):
        line = lines[number]
        following = lines[number + 1] if number + 1 < len(lines) else b""
        if line.startswith(b"--- ") and following.startswith(b"+++ "):
            found.append((_name(line, following), []))
            number += 2
        elif found and (begun := HUNK.match(line)):
            number, hunk = _hunk(begun, lines, number + 1, found[-1][0])
            found[-1][1].append(hunk)
        elif found and line.rstrip() == _SIGNATURE.rstrip():
            break
        elif found and not line.startswith(_BETWEEN):
            raise PatchError(f"has a line for {_shown(found[-1][0])} that belongs to no hunk")
        else:
            number += 1
    if not found:
        raise PatchError("is no unified diff")
    if empty := next((name for name, hunks in found if not hunks), None):
        raise PatchError(f"has no hunk for {_shown(empty)}")
    return found


def _lines(content: bytes) -> list[bytes]:
    """Return lines as diff has them: a carriage return alone ends none."""
    return re.findall(rb"[^\n]*\n|[^\n]+", content)


def _name(before: bytes, after: bytes) -> str:
    """Return the file of a header's two lines, of which each begins with a folder. Raises PatchError."""
    old, new = (
        line[4:].split(b"\t")[0].strip().decode(errors="replace").partition("/")[2]
        for line in (before, after)
    )
    if old != new:
        what = "files are changed, and neither made, moved nor removed"
        raise PatchError(f"makes {_shown(new)} of {_shown(old)}: {what}")
    parts = old.split("/")
    if (
        any(part in ("", ".", "..") or len(part.encode()) > _LONGEST_NAME for part in parts)
        or len(old.encode()) > _LONGEST_PATH
        or not old.isprintable()
    ):
        raise PatchError(f"changes {_shown(old)!r}, which is no path of a file in the tree")
    return old


def _shown(name: str) -> str:
    """Return a name as it can stand in a sentence."""
    plain = "".join(each if each.isprintable() else "?" for each in name[:_LONGEST_SHOWN])
    return plain if len(name) <= _LONGEST_SHOWN else f"{plain}…"


def _hunk(begun: re.Match[bytes], lines: list[bytes], number: int, name: str) -> tuple[int, Hunk]:
    """Read a hunk from its second line on; return the number of the line after it. Raises PatchError.

    How many lines it has is in its first line: what is in it may look like anything.
    """
    if any(len(each or b"") > _MOST_DIGITS for each in begun.groups()):
        raise PatchError(f"has a hunk for {_shown(name)} with a number of more than {_MOST_DIGITS} digits")
    start, left, gained = int(begun[1]), int(begun[2] or 1), int(begun[4] or 1)
    # Of no lines the number is that of the line before them.
    hunk = Hunk(start - 1 if left else start, [], [])
    while left or gained:
        line = lines[number] if number < len(lines) else b"@"
        kind, text = (b" ", line) if line in (b"\n", b"\r\n") else (line[:1], line[1:])
        number += 1
        left -= kind in b" -"
        gained -= kind in b" +"
        if kind not in b" +-" or left < 0 or gained < 0:
            raise PatchError(f"has a hunk for {name} that is not as long as it says")
        if kind != b"-":
            hunk.new.append((text, len(hunk.old) if kind == b" " else None))
        if kind != b"+":
            hunk.old.append(text)
        if number < len(lines) and lines[number].startswith(b"\\"):  # no newline at the end of the file
            number += 1
            if kind == b"+":
                hunk.new[-1] = (text.rstrip(b"\r\n"), None)
    return number, hunk


def changed(name: str, lines: list[bytes], hunks: list[Hunk]) -> list[bytes]:
    """Return the lines of a file after its hunks. Raises PatchError."""
    made: list[bytes] = []
    at = 0
    for hunk in hunks:
        if hunk.at < at:
            raise PatchError(f"has hunks for {name} that are out of order")
        there = lines[hunk.at : hunk.at + len(hunk.old)]
        for number, old in enumerate(hunk.old):
            if number >= len(there) or there[number].rstrip(b"\r\n") != old.rstrip(b"\r\n"):
                raise PatchError(f"does not apply to {name}:{hunk.at + number + 1}")
        if hunk.at > len(lines):
            raise PatchError(f"does not apply to {name}:{hunk.at + 1}")
        made += lines[at : hunk.at]
        made += [text if kept is None else there[kept] for text, kept in hunk.new]
        at = hunk.at + len(hunk.old)
    made += lines[at:]
    if not all(line.endswith(b"\n") for line in made[:-1]):
        raise PatchError(f"does not apply to {name}: it ends without a newline")
    return made


def apply(tree: Path, patch: bytes) -> None:
    """Apply one patch to a tree: all of it, or nothing. Raises PatchError."""
    made: dict[Path, list[bytes]] = {}
    for name, hunks in files_of(patch):
        path = _file(tree, name)
        made[path] = changed(name, made[path] if path in made else _lines(path.read_bytes()), hunks)
    for path, lines in made.items():
        path.write_bytes(b"".join(lines))


def _file(tree: Path, name: str) -> Path:
    """Return where a file lies, over no link: that could lead out of the tree. Raises PatchError."""
    path, mode, size = tree, 0, 0
    for part in name.split("/"):
        path /= part
        try:
            status = path.lstat()
        except OSError:
            raise PatchError(f"changes {name}, and there is no such file") from None
        mode, size = status.st_mode, status.st_size
        if stat.S_ISLNK(mode):
            raise PatchError(f"changes {name}, and {path.relative_to(tree)} is a link")
    if not stat.S_ISREG(mode):
        raise PatchError(f"changes {name}, and there is no such file")
    if size > LARGEST_FILE:
        raise PatchError(f"changes {name}, which is larger than {LARGEST_FILE >> 20} MiB")
    return path


def main(arguments: list[str]) -> int:
    """Apply all patches of a node."""
    node, tree, patches = arguments
    for patch in sorted(Path(patches).iterdir()):
        try:
            apply(Path(tree), patch.read_bytes())
        except PatchError as wrong:
            sys.stderr.write(f"podkiln: The custom node {node}: its patch {patch.name} {wrong}.\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
