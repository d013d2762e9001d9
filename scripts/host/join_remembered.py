"""Add what other runs remember of pushed layers to a file of the lock: layers.json or runtimes.json.

Usage: join_remembered.py LOCK FILE...

Of an entry that several have, the last one counts. A FILE that does not exist is passed over: not every run
pushes weights. Standard library only; GitHub's runner calls it without an environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def join(lock: Path, files: list[Path]) -> None:
    """Write the entries of all files into the lock, in the order in which they come."""
    joined: dict[str, dict[str, object]] = {}
    versions = set()
    for path in filter(Path.is_file, (lock, *files)):
        document = json.loads(path.read_text(encoding="utf-8"))
        versions.add(document.pop("schema_version"))
        for name, entries in document.items():
            joined.setdefault(name, {}).update(entries)
    if len(versions) > 1:
        sys.exit(f"{lock}: the files have schema_version {', '.join(map(str, sorted(versions)))}.")
    if versions:
        lock.write_text(
            json.dumps({"schema_version": versions.pop(), **joined}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    join(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
