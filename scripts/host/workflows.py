"""Write what is made of the example workflows, or take the definitions that they are checked against.

Usage:
  workflows.py                      write variants/workflows/ID.json from each ID.api.json
  workflows.py --check              write nothing; say what is wrong, or not current, presets too
  workflows.py markers DIR          make the files that must lie in ComfyUI's --base-directory DIR
  workflows.py definitions URL [ID=FOLDER@COMMIT...]
                                    take them from the ComfyUI there: of itself, and of custom nodes by the
                                    folder that each has below custom_nodes

Run it with the checkout's Python: .venv/bin/python scripts/host/workflows.py
"""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from podkiln.config import (  # noqa: E402 - the path comes first: podkiln is run from its checkout
    catalog,
    model_folders,
    node_definitions,
    presets,
    workflows,
)
from podkiln.config.fields import IDENTIFIER  # noqa: E402 - as above
from podkiln.errors import PodkilnError, SourceError, UsageError  # noqa: E402 - as above
from podkiln.util import atomic  # noqa: E402 - as above


def main(words: list[str]) -> int:
    """Run a command line; return the exit code."""
    match words:
        case []:
            return write()
        case ["--check"]:
            return check()
        case ["markers", folder]:
            return make_markers(Path(folder))
        case ["definitions", url, *nodes]:
            return take(url, nodes)
    print(__doc__, file=sys.stderr)
    return 2


def write() -> int:
    """Write the editor forms."""
    said = workflows.problems()
    for line in said:
        print(line, file=sys.stderr)
    if said:
        return 1
    for path, text in workflows.editor_forms().items():
        if atomic.write(path, text):
            print(path.relative_to(ROOT))
    return 0


def check() -> int:
    """Say what is wrong with the workflows and presets, or not current."""
    said = [*workflows.problems(), *presets.problems()] or [
        f"{path.name}: run scripts/host/workflows.py" for path in workflows.stale()
    ]
    for line in said:
        print(line, file=sys.stderr)
    return 1 if said else 0


def make_markers(folder: Path) -> int:
    """Make the empty files by which a list of files shows which folder it is of."""
    known = model_folders.load(workflows.release())
    used = {file.folder.split("/")[0] for entry in catalog.load().values() for file in entry.model.files}
    for name in node_definitions.markers(sorted({*known.folders, *known.legacy, *used})):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return 0


def take(url: str, nodes: list[str]) -> int:
    """Take the definitions from a ComfyUI that runs. Raises UsageError, SourceError, DescriptionError."""
    modules = {}
    for each in nodes:
        given = re.fullmatch(rf"({IDENTIFIER})=([^@/]+)@([0-9a-f]{{40}})", each)
        if given is None:
            raise UsageError(f"{each!r} is not ID=FOLDER@COMMIT, of a commit the 40 digits.")
        if given[1] == node_definitions.COMFYUI or given[2] in modules:
            raise UsageError(f"{each!r} is of what is named already.")
        modules[given[2]] = (given[1], given[3])
    address = f"{url.rstrip('/')}/object_info"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - a person gives it
            told = dict(json.load(answer))
    except (OSError, ValueError, TypeError, HTTPException) as failed:
        raise SourceError(f"{address} does not say what nodes there are: {failed}.") from None
    for name, text in node_definitions.taken(told, modules, workflows.release()).items():
        path = node_definitions.FOLDER / name
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(text.encode())} bytes")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (PodkilnError, OSError) as failure:
        sys.exit(str(failure))
