"""Bytecode that stays valid when file times are rewritten, and is the same on every machine."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "build" / "compile_bytecode.py"
UNCHECKED_HASH = 0b01  # PEP 552: the word behind the magic number


def compile_all(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-S", str(SCRIPT), *options, str(folder)]
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


def test_bytecode_that_is_there_stays_unless_forced(package: Path) -> None:
    there = bytecode(package / "a.py")
    there.parent.mkdir()
    there.write_bytes(b"made by another")
    compile_all(package)
    assert there.read_bytes() == b"made by another"
    compile_all(package, "--force")
    assert there.read_bytes() != b"made by another"


def test_two_runs_give_the_same_bytes(package: Path) -> None:
    found = []
    for _ in range(2):
        compile_all(package, "--force")
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
