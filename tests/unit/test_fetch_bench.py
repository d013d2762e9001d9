"""bench/fetch.py measures what it says, and a missed limit or a missing tool is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "fetch.py"
SMALL = ("--size=3MiB", "--count=3", "--each=1MiB", "--rounds=1")


def bench(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(BENCH), *SMALL, *options]
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=120
    )


def test_podkiln_and_the_hubs_own_client_are_measured(tmp_path: Path) -> None:
    done = bench("--tools", "podkiln", "hf", "--dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "one file of 3 MiB, checked; median of 1" in done.stdout
    assert "3 files of 1 MiB, checked; median of 1" in done.stdout
    assert done.stdout.count("times podkiln's") == 2
    assert not list(tmp_path.iterdir())


def test_a_missed_limit_fails(tmp_path: Path) -> None:
    """A wget that has the bytes already beats everybody."""
    (tmp_path / "wget").write_text(
        f"#!{sys.executable}\n"
        "import re, sys\nfrom pathlib import Path\n"
        "folder = Path(sys.argv[sys.argv.index('--directory-prefix') + 1])\n"
        "source = (folder.parent / 'source').read_bytes()\n"
        "for url in (folder / 'urls').read_text().split():\n"
        "    name = url.rpartition('/')[2]\n"
        "    start, size = (int(name[:3]) << 20, 1 << 20) if name[:3].isdigit() else (0, 3 << 20)\n"
        "    (folder / name).write_bytes(source[start : start + size])\n"
    )
    (tmp_path / "wget").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = bench("--tools", "podkiln", "wget", "--dir", str(tmp_path), "--factor=1000", PATH=path)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("limit 1000.0 MISSED") == 2


def test_a_tool_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    done = bench(PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "bench/fetch.py: aria2c is not here: apt-get install aria2\n"
