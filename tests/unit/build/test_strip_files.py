"""What is left out of installed packages: the files, their folders, and their lines in RECORD."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "build" / "strip_files.py"
FILES = (
    "pack/__init__.py",
    "pack/tests/a.py",
    "pack/tests/sub/b.py",
    "pack/lib.so",
    'pack/tests/odd, "name".py',
)
DIST = "Pack_age-1.0.dist-info"


def strip(rules: str, where: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    listed = where / "rules.txt"
    listed.write_text(rules)
    argv = [sys.executable, "-I", "-S", SCRIPT, listed, *(more or (where,))]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A distribution as an installer leaves it."""
    rows = [[name, "sha256=x", "4"] for name in (*FILES, f"{DIST}/tests/LICENSE")] + [
        [f"{DIST}/RECORD", "", ""]
    ]
    for name, _, size in rows:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * int(size or 0))
    with (tmp_path / DIST / "RECORD").open("w", newline="") as record:
        csv.writer(record, lineterminator="\n").writerows(rows)
    return tmp_path


def recorded(site: Path) -> dict[str, list[str]]:
    with (site / DIST / "RECORD").open(newline="") as record:
        return {row[0]: row[1:] for row in csv.reader(record)}


def test_files_go_with_their_folders_and_their_lines(site: Path) -> None:
    done = strip("# tests: why.\nremove pack-age */tests/*\n", site)
    assert (done.returncode, done.stdout) == (0, "left out: 0.0 MB\n"), done.stderr
    assert not (site / "pack/tests").exists()
    assert (site / "pack/lib.so").read_bytes() == b"xxxx"
    # What a distribution says of itself stays, licences among it.
    left = ["pack/__init__.py", "pack/lib.so", f"{DIST}/tests/LICENSE", f"{DIST}/RECORD"]
    assert list(recorded(site)) == left
    assert all((site / name).exists() for name in left)


def test_emptied_files_are_recorded_as_empty(site: Path) -> None:
    assert strip("empty pack-age *.so\n", site).returncode == 0
    assert (site / "pack/lib.so").read_bytes() == b""
    assert recorded(site)["pack/lib.so"] == ["sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", "0"]
    assert list(recorded(site))[:5] == list(FILES)


def test_a_cache_that_shares_the_files_stays_whole(site: Path, tmp_path: Path) -> None:
    for name in ("pack/lib.so", f"{DIST}/RECORD"):
        (tmp_path / f"kept-{Path(name).name}").hardlink_to(site / name)
    before = (tmp_path / "kept-RECORD").read_bytes()
    assert strip("empty pack-age *.so\n", site).returncode == 0
    assert (tmp_path / "kept-lib.so").read_bytes() == b"xxxx"
    assert (tmp_path / "kept-RECORD").read_bytes() == before


def test_a_rule_for_what_other_requirements_do_not_bring_is_none(site: Path) -> None:
    done = strip("remove other *.so\n", site)
    assert (done.returncode, done.stdout) == (0, "left out: 0.0 MB\n"), done.stderr


def test_a_rule_that_matches_nothing_ends_the_build(site: Path) -> None:
    done = strip("remove pack-age *.dll\n", site)
    assert done.returncode == 1
    assert done.stderr.startswith("podkiln: the Python package pack-age has no file *.dll")
    assert "correct the row there, or set `runtime.strip: false`" in done.stderr


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two Debian packages: a library with its link, and one that needs it."""
    info, lib = tmp_path / "var/lib/dpkg/info", tmp_path / "usr/lib/x"
    info.mkdir(parents=True)
    lib.mkdir(parents=True)
    (lib / "libbig.so.1").write_bytes(b"big")
    (lib / "libbig.so").symlink_to("libbig.so.1")
    (lib / "libuser.so").write_bytes(b"user")
    (info / "libbig:amd64.list").write_text(
        "/.\n/usr/lib/x\n/usr/lib/x/libbig.so.1\n/usr/lib/x/libbig.so\n/gone\n"
    )
    (info / "user.list").write_text("/usr/lib/x/libuser.so\n")
    return tmp_path


def test_debian_files_go_and_their_lists_stay(root: Path) -> None:
    done = strip(
        "remove libbig,user /usr/lib/*/libbig.so*\nremove libbig,user *user.so\n", root, "debian", root
    )
    assert done.returncode == 0, done.stderr
    assert list((root / "usr/lib/x").iterdir()) == []
    assert "libbig.so" in (root / "var/lib/dpkg/info/libbig:amd64.list").read_text()


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ("remove libbig,user /usr/lib/*/libbig.so*\n", "no pattern matches a file of user"),
        ("remove libbig *.a\n", "the Debian packages libbig have no file *.a"),
    ],
)
def test_a_stale_debian_row_ends_the_build(rules: str, sentence: str, root: Path) -> None:
    done = strip(rules, root, "debian", root)
    assert done.returncode == 1
    assert sentence in done.stderr
