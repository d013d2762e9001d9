"""What works of a Python environment: run by its own interpreter; standard library only.

Prints JSON: {"modules": {name: error or null}, "missing": {library: [files that need it]}}.

Modules: the top modules of every distribution, and every module of those from which the strip list takes
files, but for tests. Missing: what ldd does not find for the shared objects of site-packages.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

WHOLE = (
    "comfy_aimdo",
    "comfy_kitchen",
    "mpmath",
    "networkx",
    "numpy",
    "regex",
    "scipy",
    "setuptools",
    "sympy",
    "triton",
)
SITE = Path(sysconfig.get_path("purelib"))


def modules() -> list[str]:
    """Return the names of what is to be imported, in alphabetical order."""
    found = set()
    for record in SITE.glob("*.dist-info/RECORD"):
        with record.open(newline="", encoding="utf-8") as lines:
            found |= {wanted(row[0]) for row in csv.reader(lines)}
    return sorted(found - {""})


def wanted(path: str) -> str:
    """Return the name of the module that a file of RECORD is, if it is to be imported; else nothing."""
    parts = path.removesuffix(".py").split("/")
    name = ".".join(parts).removesuffix(".__init__")
    known = path.endswith(".py") and re.fullmatch(r"[\w.]+", name)
    if not known or {"tests", "conftest", "__main__"} & {*parts}:
        return ""
    return name if "." not in name or parts[0] in WHOLE else ""


def failure(name: str) -> str | None:
    """Import one module; return what went wrong."""
    try:
        importlib.import_module(name)
    except BaseException as wrong:  # noqa: BLE001 - a module may even call sys.exit
        return f"{type(wrong).__name__}: {wrong}"[:200]
    return None


def missing() -> dict[str, list[str]]:
    """Return the libraries that are not found, each with the files that need it."""
    found: dict[str, list[str]] = {}
    for file in sorted(SITE.rglob("*.so*")):
        done = subprocess.run(["ldd", file], capture_output=True, text=True, check=False)
        for library in re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE):
            found.setdefault(library, []).append(str(file.relative_to(SITE)))
    return found


def main() -> None:
    """Print both; what modules write to standard output goes to the other one."""
    answers = os.dup(1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    told = {"modules": {name: failure(name) for name in modules()}, "missing": missing()}
    with os.fdopen(answers, "w") as out:
        json.dump(told, out)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # what some modules started need not end by itself
