"""RAM: the smaller of the machine's and the control group's, in both versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pod.hardware import memory
from pod.hardware.memory import Memory

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024**3
NO_LIMIT_V1 = "9223372036854771712"  # PAGE_COUNTER_MAX in bytes, what version 1 shows without a limit


def read(root: Path, files: dict[str, str], own: str = "0::/\n", host_gib: int | None = 64) -> Memory:
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (root / "cgroup").mkdir(exist_ok=True)
    if host_gib is not None:
        meminfo = f"MemTotal:       {host_gib * 1024 * 1024} kB\nMemFree:  1 kB\n"
        (root / "meminfo").write_text(meminfo, encoding="utf-8")
    (root / "own").write_text(own, encoding="utf-8")
    return memory.read(root / "cgroup", root / "meminfo", root / "own")


@pytest.mark.parametrize("gib", [8, 15, 16, 31, 32, 62])
def test_version_2(tmp_path: Path, gib: int) -> None:
    found = read(tmp_path, {"memory.max": f"{gib * GIB}\n"})
    assert Memory(64 * 1024, gib * 1024) == found
    assert (gib * 1024, True) == (found.total_mib, found.limited)


@pytest.mark.parametrize("gib", [8, 15, 16, 31, 32, 62])
def test_version_1(tmp_path: Path, gib: int) -> None:
    files = {"memory/memory.limit_in_bytes": f"{gib * GIB}\n"}
    assert Memory(64 * 1024, gib * 1024) == read(tmp_path, files, own="4:memory:/\n0::/\n")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"memory.max": "max\n"},
        {"memory.max": ""},
        {"memory.max": "0\n"},
        {"memory.max": "a lot\n"},
        {"memory.max": f"{64 * GIB}\n"},
        {"memory.max": f"{100 * GIB}\n"},
        {"memory/memory.limit_in_bytes": f"{NO_LIMIT_V1}\n"},
    ],
)
def test_no_limit(tmp_path: Path, files: dict[str, str]) -> None:
    found = read(tmp_path, files)
    assert Memory(64 * 1024, None) == found
    assert (found.total_mib, found.limited) == (64 * 1024, False)


def test_a_parents_limit_holds_too(tmp_path: Path) -> None:
    files = {"memory.max": "max", "pods/memory.max": f"{16 * GIB}", "pods/one/memory.max": f"{32 * GIB}"}
    assert read(tmp_path, files, own="0::/pods/one\n").limit_mib == 16 * 1024


def test_a_parents_limit_holds_in_version_1(tmp_path: Path) -> None:
    files = {
        "memory/docker/memory.limit_in_bytes": f"{12 * GIB}",
        "memory/docker/abc/memory.limit_in_bytes": NO_LIMIT_V1,
    }
    found = read(tmp_path, files, own="7:cpu,memory:/docker/abc\n2:pids:/docker/abc\n")
    assert found.limit_mib == 12 * 1024


@pytest.mark.parametrize("own", ["", "0::/not/mounted/here\n", "0::/../sibling\n"])
def test_a_path_from_another_namespace_means_the_root(tmp_path: Path, own: str) -> None:
    assert read(tmp_path, {"memory.max": f"{16 * GIB}"}, own=own).limit_mib == 16 * 1024


def test_nothing_can_be_read(tmp_path: Path) -> None:
    found = memory.read(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert Memory(None, None) == found
    assert found.total_mib is None


def test_a_limit_without_a_machine(tmp_path: Path) -> None:
    assert Memory(None, 16 * 1024) == read(tmp_path, {"memory.max": f"{16 * GIB}"}, host_gib=None)


def test_this_machine_has_some() -> None:
    total = memory.read().total_mib
    assert total is not None
    assert total > 256
