"""Compile .py files to bytecode that stays valid when file times are rewritten.

Usage: compile_bytecode.py FOLDER...

Python's default .pyc carries its source's mtime. A reproducible image rewrites all mtimes, so each of those
would be stale and ComfyUI would start 25 s later; an unchecked-hash .pyc (PEP 552) is never compared with its
source. Files that have one already keep it, so that a layer holds only its own files. One of the default kind
is made anew, whether a package manager left it or a program that ran while the image was built.
"""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path

# What a .pyc holds depends a little on what its process compiled before it (which strings were interned), so
# files are dealt out to a fixed number of workers in a fixed order, however many cores the builder has.
WORKERS = 4
UNCHECKED = MAGIC_NUMBER + (0b01).to_bytes(4, "little")  # PEP 552: how such a file begins


def find(folders: list[str]) -> list[str]:
    """Return the sources that have no such bytecode yet, in a fixed order."""
    return [
        str(source)
        for folder in folders
        for source in sorted(Path(folder).rglob("*.py"))
        if source.is_file() and not is_unchecked(source)
    ]


def is_unchecked(source: Path) -> bool:
    """Return whether a source has unchecked-hash bytecode of this Python."""
    made = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
    try:
        with made.open("rb") as file:
            return file.read(len(UNCHECKED)) == UNCHECKED
    except OSError:
        return False


def compile_listed() -> None:
    """Compile the files listed on standard input; what does not parse (templates, old tests) stays."""
    for source in filter(None, os.fsdecode(sys.stdin.buffer.read()).split("\0")):
        py_compile.compile(source, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


def main(arguments: list[str]) -> int:
    """Deal the files out to the workers and wait for them."""
    if arguments == ["--worker"]:
        compile_listed()
        return 0
    sources = find(arguments)
    command = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), "--worker"]
    workers = []
    for share in range(WORKERS):
        worker = subprocess.Popen(command, stdin=subprocess.PIPE)
        workers.append(worker)
        assert worker.stdin is not None  # noqa: S101 - a pipe was asked for
        worker.stdin.write(os.fsencode("\0".join(sources[share::WORKERS])))
        worker.stdin.close()
    return max(worker.wait() for worker in workers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
