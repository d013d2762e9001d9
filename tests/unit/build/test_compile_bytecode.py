"""Bytecode that stays valid when file times are rewritten, and is the same on every machine."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "build" / "compile_bytecode.py"
UNCHECKED_HASH = 0b01  # PEP 552: the word behind the magic number


def compile_all(folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-S", str(SCRIPT), str(folder)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def bytecode(source: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(source)))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in ("__init__", "a", "sub/b"):
        path = tmp_path / "package" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"NAME = {name!r}\n")
    return tmp_path / "package"


def test_every_source_gets_one_that_is_never_stale(package: Path) -> None:
    assert compile_all(package).returncode == 0
    for source in package.rglob("*.py"):
        assert int.from_bytes(bytecode(source).read_bytes()[4:8], "little") == UNCHECKED_HASH
        os.utime(source, (1, 1))
    code = f"import sys; sys.path.insert(0, {str(package.parent)!r}); import package.sub.b"
    done = subprocess.run([sys.executable, "-v", "-c", code], capture_output=True, text=True, check=True)
    assert f"matches {package}/sub/b.py" in done.stderr
    assert "stale" not in done.stderr


def test_bytecode_of_this_kind_stays(package: Path) -> None:
    compile_all(package)
    there = bytecode(package / "a.py")
    made = there.read_bytes()
    (package / "a.py").write_text("OTHER = 1\n")
    compile_all(package)
    assert there.read_bytes() == made


def test_bytecode_with_the_time_of_its_source_is_made_anew(package: Path) -> None:
    """As Debian's packages leave it, and any Python that imports a module while an image is built."""
    py_compile.compile(str(package / "a.py"))
    bytecode(package / "sub/b.py").parent.mkdir()
    bytecode(package / "sub/b.py").write_bytes(b"cut off")
    compile_all(package)
    for source in package.rglob("*.py"):
        assert int.from_bytes(bytecode(source).read_bytes()[4:8], "little") == UNCHECKED_HASH


def test_two_runs_give_the_same_bytes(package: Path) -> None:
    found = []
    for _ in range(2):
        for made in package.rglob("*.pyc"):
            made.unlink()
        compile_all(package)
        found.append(
            [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(package.rglob("*.pyc"))]
        )
    assert found[0] == found[1]
    assert len(found[0]) == 3


def test_what_does_not_parse_stays_and_stops_nothing(package: Path) -> None:
    (package / "template.py").write_text("def {{ name }}:\n")
    (package / "old.py").write_bytes(b"print '\xff'\n")
    assert compile_all(package).returncode == 0
    assert bytecode(package / "a.py").exists()
    assert not bytecode(package / "template.py").exists()


def test_any_name_will_do(package: Path) -> None:
    odd = os.fsencode(package) + b"/od d\n\xff.py"
    with open(odd, "wb") as file:  # noqa: PTH123 - a name that is no text
        file.write(b"X = 1\n")
    done = compile_all(package)
    assert done.returncode == 0, done.stderr
    assert len(list(package.rglob("*.pyc"))) == 4
