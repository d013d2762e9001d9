"""Compile .py files to bytecode that stays valid when file times are rewritten.

Usage: compile_bytecode.py [--force] FOLDER...

Python's default .pyc carries its source's mtime. A reproducible image rewrites all mtimes, so each of those
would be stale and ComfyUI would start 25 s later; an unchecked-hash .pyc (PEP 552) is never compared with its
source. Files that have a .pyc already keep it, so that a layer holds only its own files; --force is for those
that a package manager compiled the default way.
"""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from pathlib import Path

# What a .pyc holds depends a little on what its process compiled before it (which strings were interned), so
# files are dealt out to a fixed number of workers in a fixed order, however many cores the builder has.
WORKERS = 4


def find(folders: list[str], *, force: bool) -> list[str]:
    """Return the sources that have no bytecode yet, or all of them, in a fixed order."""
    tag = sys.implementation.cache_tag
    return [
        str(source)
        for folder in folders
        for source in sorted(Path(folder).rglob("*.py"))
        if source.is_file()
        and (force or not (source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc").exists())
    ]


def compile_listed() -> None:
    """Compile the files listed on standard input; what does not parse (templates, old tests) stays."""
    for source in filter(None, os.fsdecode(sys.stdin.buffer.read()).split("\0")):
        py_compile.compile(source, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


def main(arguments: list[str]) -> int:
    """Deal the files out to the workers and wait for them."""
    if arguments == ["--worker"]:
        compile_listed()
        return 0
    sources = find([each for each in arguments if each != "--force"], force="--force" in arguments)
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
