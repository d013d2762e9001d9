"""All bytecode in the image is valid whatever becomes of file times: a stale one costs 25 s of every boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from containers import Container

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images import Image

pytestmark = pytest.mark.engine
FOLDERS = (
    "/usr/lib/python3",
    "/usr/lib/python3.13",
    "/opt/venv/lib",
    "/opt/jupyter/lib",
    "/opt/ComfyUI",
    "/opt/podkiln",
)

# PEP 552: the flags are the second word; 1 says hash-based and never checked.
SURVEY = """
import importlib.util, pathlib, sys
for folder in sys.argv[1:]:
    for source in pathlib.Path(folder).rglob("*.py"):
        compiled = pathlib.Path(importlib.util.cache_from_source(source))
        if not compiled.exists():
            try:
                compile(source.read_bytes(), source, "exec", dont_inherit=True)
            except (SyntaxError, ValueError):
                continue
            print(source, "has none")
        elif compiled.read_bytes()[4:8] != bytes([1, 0, 0, 0]):
            print(compiled, "is of another kind")
"""
STANDARD = (
    "asyncio, ctypes, email.mime.text, http.server, json, logging.config, sqlite3, ssl, unittest, zipfile"
)
IMPORTS = {
    "the system's Python": ("/usr/bin/python3", "-v", "-c", f"import {STANDARD}"),
    "what start.sh calls": (
        *("/usr/bin/python3", "-I", "-S", "-v", "-c"),
        (
            "import sys; sys.path[:0] = ['/opt/podkiln']; "
            "import pod.decision, pod.flags.choose, pod.commands.fetch"
        ),
    ),
    "ComfyUI's Python": (
        "/opt/venv/bin/python",
        "-v",
        "-c",
        f"import {STANDARD}, yaml, pip._internal.cli.main",
    ),
    "ComfyUI": (
        *("/opt/venv/bin/python", "-v", "-c"),
        "import sys; sys.path.insert(0, '/opt/ComfyUI'); import main, contract.server",
    ),
}


@pytest.fixture(scope="module")
def aged(lazy: Image) -> Iterator[Container]:
    """A pod in which every source looks newer than its bytecode."""
    with Container(lazy.name, "infinity", options=["--entrypoint", "sleep"]) as pod:
        pod.exec("find", *FOLDERS, "-name", "*.py", "-exec", "touch", "--date=2030-01-01", "{}", "+")
        yield pod


def test_every_source_has_bytecode_of_the_unchecked_kind(aged: Container) -> None:
    assert aged.exec("/usr/bin/python3", "-c", SURVEY, *FOLDERS).stdout == ""


@pytest.mark.parametrize("which", IMPORTS)
def test_nothing_is_compiled_again(aged: Container, which: str) -> None:
    said = aged.exec(*IMPORTS[which]).stderr.splitlines()
    used = [line for line in said if line.startswith("# code object from") and "/__pycache__/" in line]
    again = [line for line in said if line.startswith("# code object from") and ".py'" in line]
    stale = [line for line in said if "bytecode is stale" in line or line.startswith("# wrote")]
    assert len(used) > 5
    assert again == []
    assert stale == []


def test_a_default_pyc_would_be_seen(aged: Container) -> None:
    """The proof of the proof: with Python's own kind of bytecode the same survey and -v complain."""
    aged.exec("mkdir", "/tmp/own")
    script = (
        "import pathlib, py_compile, os; p = pathlib.Path('/tmp/own/a.py'); p.write_text('x = 1'); "
        "py_compile.compile(p); os.utime(p, (0, 0))"
    )
    aged.exec("/usr/bin/python3", "-c", script)
    assert "is of another kind" in aged.exec("/usr/bin/python3", "-c", SURVEY, "/tmp/own").stdout
    said = aged.exec("/usr/bin/python3", "-v", "-c", "import sys; sys.path.insert(0, '/tmp/own'); import a")
    assert "bytecode is stale" in said.stderr
