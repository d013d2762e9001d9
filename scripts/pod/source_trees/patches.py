"""Apply unified diffs to a tree: every hunk at its own line, or not at all.

Usage: apply_patches.py NODE TREE PATCHES

PATCHES is a folder; they are applied in the order of their names. What does not fit ends the build with one
sentence. Format: https://www.gnu.org/software/diffutils/manual/html_node/Detailed-Unified.html.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HUNK = re.compile(rb"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


class PatchError(Exception):
    """A patch that does not apply; the message goes on after its name."""


def files_of(patch: bytes) -> list[tuple[str, list[bytes]]]:
    """Return the files that a patch changes, each with its lines from the first hunk on."""
    found: list[tuple[str, list[bytes]]] = []
    for line in patch.splitlines(keepends=True):
        if line.startswith(b"--- "):
            name = line[4:].split(b"\t")[0].strip().decode()
            found.append((name.partition("/")[2], []))
        elif found and not line.startswith((b"+++ ", b"diff ", b"index ")):
            found[-1][1].append(line)
    if not found:
        raise PatchError("is no unified diff")
    return found


def changed(name: str, lines: list[bytes], hunks: list[bytes]) -> list[bytes]:
    """Return the lines of a file after its hunks. Raises PatchError."""
    made: list[bytes] = []
    at = 0
    number = 0
    while number < len(hunks):
        begun = HUNK.match(hunks[number])
        if begun is None:
            raise PatchError(f"has a line for {name} that belongs to no hunk")
        start = int(begun[1]) - 1
        if start < at:
            raise PatchError(f"has hunks for {name} that are out of order")
        made += lines[at:start]
        at, number = start, number + 1
        while number < len(hunks) and not hunks[number].startswith(b"@@"):
            kind, text = hunks[number][:1], hunks[number][1:]
            number += 1
            if kind == b"\\":  # no newline at the end of the file
                continue
            if kind in b" -":
                if at >= len(lines) or lines[at].rstrip(b"\r\n") != text.rstrip(b"\r\n"):
                    raise PatchError(f"does not apply to {name}:{at + 1}")
                made += [lines[at]] if kind == b" " else []
                at += 1
            elif kind == b"+":
                made.append(text)
    return made + lines[at:]


def apply(tree: Path, patch: bytes) -> None:
    """Apply one patch to a tree. Raises PatchError."""
    for name, hunks in files_of(patch):
        path = tree / name
        if ".." in Path(name).parts or not path.is_file() or path.is_symlink():
            raise PatchError(f"changes {name}, and there is no such file")
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(changed(name, lines, hunks)))


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
