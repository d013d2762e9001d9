"""sha256_native.c is translated where it can be, tried out before its use, and else done without."""

from __future__ import annotations

import stat
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from podkiln.weights import sha256_native
from podkiln.weights.sha256_native import NativeHasher, UnusableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FITTING = """
void podkiln_compress(unsigned *one, unsigned *other, const unsigned char *data, unsigned long count) {}
int podkiln_supported(void) { return %d; }
"""


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment in which nothing is translated yet; afterwards the usual one is looked at again."""
    made = tmp_path / "environment"
    made.mkdir()
    monkeypatch.setattr(sys, "prefix", str(made))
    sha256_native.library.cache_clear()
    yield made
    sha256_native.library.cache_clear()


def translated(environment: Path) -> list[Path]:
    return list((environment / "podkiln").rglob("*"))


def has_instructions() -> bool:
    with open("/proc/cpuinfo", encoding="utf-8") as told:  # noqa: PTH123 - tells more than a path
        return "sha_ni" in told.read()


def test_it_is_translated_once(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (sha256_native.library() is not None) == has_instructions()
    made = translated(environment)
    assert [path.suffix for path in made] == [".so"]  # kept without the instructions, too
    monkeypatch.setenv("PATH", "")
    sha256_native.library.cache_clear()
    assert (sha256_native.library() is not None) == has_instructions()
    assert translated(environment) == made


def test_all_may_read_it(environment: Path) -> None:
    """An environment that root has made is used by others."""
    sha256_native.library()
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o555 == 0o555 for path in translated(environment))


def test_other_options_make_another(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256_native.library()
    monkeypatch.setattr(sha256_native, "COMPILER", (*sha256_native.COMPILER, "-g"))
    sha256_native.library.cache_clear()
    sha256_native.library()
    assert len(translated(environment)) == 2


def test_one_that_is_damaged_is_made_again(environment: Path) -> None:
    sha256_native.library()
    for path in translated(environment):
        path.unlink()  # and not written over: it is in use
        path.write_bytes(b"")
    sha256_native.library.cache_clear()
    assert (sha256_native.library() is not None) == has_instructions()
    assert all(path.stat().st_size for path in translated(environment))


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("int main(void) {", 0),
        (FITTING % 0, 1),
        (FITTING % 1, 1),
        ("int podkiln_supported(void) { return 1; }", 1),
    ],
    ids=["no C", "another processor", "wrong hashes", "not the function"],
)
def test_what_is_of_no_use_is_translated_once_and_not_used(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, kept: int
) -> None:
    monkeypatch.setattr(sha256_native, "SOURCE", tmp_path / "sha256_native.c")
    sha256_native.SOURCE.write_text(source)
    assert sha256_native.library() is None
    made = translated(environment)
    assert len(made) == kept
    monkeypatch.setenv("PATH", "")  # no compiler any more
    sha256_native.library.cache_clear()
    assert sha256_native.library() is None
    assert translated(environment) == made


def test_wrong_hashes_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "it.c").write_text(FITTING % 1)
    subprocess.run([*sha256_native.COMPILER, "-o", tmp_path / "it.so", tmp_path / "it.c"], check=True)
    with pytest.raises(UnusableError, match="hashes wrongly"):
        sha256_native.load(tmp_path / "it.so")


def test_without_a_compiler(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert sha256_native.library() is None
    assert translated(environment) == []


def test_a_compiler_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sha256_native, "COMPILER", ("sh", "-c", "exec sleep 60"))
    monkeypatch.setattr(sha256_native, "_COMPILER_SECONDS", 0.2)
    assert sha256_native.library() is None


def test_where_nothing_may_be_written(environment: Path) -> None:
    (environment / "podkiln").write_text("in the way")
    assert sha256_native.library() is None


def test_nothing_is_written_beside_the_systems_python(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "base_prefix", str(environment))
    assert sha256_native.library() is None
    assert not (environment / "podkiln").exists()


def test_a_file_begins_where_a_block_does() -> None:
    library: Any = SimpleNamespace(podkiln_compress=None)
    hashes = NativeHasher(library)
    hashes.frame(b"x")
    with pytest.raises(ValueError, match="1 bytes into a block"):
        hashes.begin()


def test_it_is_translated_without_a_warning(tmp_path: Path) -> None:
    argv = [*sha256_native.COMPILER, "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "it.so")]
    done = subprocess.run([*argv, str(sha256_native.SOURCE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
