"""The suite's own rules, tried on small suites."""

from __future__ import annotations

import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INI = "[pytest]\nxfail_strict = true\nmarkers =\n  gpu: a card\n  full: long\n"
ONE = "def test_one():\n    pass\n"
GPU = "import pytest\n@pytest.mark.gpu\ndef test_card():\n    pass\n"


def run(folder: Path, files: dict[str, str], *options: str, path: str = "") -> tuple[int, str]:
    """Run a suite of these files under the rules; PATH is empty unless given. Return exit code and output."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "pytest.ini").write_text(INI)
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *options]
    env = {"PATH": path, "GPU_ARGS": ""}
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


SKIPS = {
    "a call": "import pytest\ndef test_a():\n    pytest.skip('no engine')\n",
    "a mark": "import pytest\n@pytest.mark.skip(reason='no engine')\ndef test_a():\n    pass\n",
    "a condition": "import pytest\n@pytest.mark.skipif(True, reason='no engine')\ndef test_a():\n    pass\n",
    "a fixture": "import pytest\n@pytest.fixture\ndef f():\n    pytest.skip('no engine')\n"
    "def test_a(f):\n    pass\n",
    "a whole module": "import pytest\npytest.skip('no engine', allow_module_level=True)\n",
    "a missing module": "import pytest\npytest.importorskip('no_such_module')\n",
    "a gpu test itself": "import pytest\n@pytest.mark.gpu\ndef test_a():\n    pytest.skip('no engine')\n",
}


@pytest.mark.parametrize("text", SKIPS.values(), ids=SKIPS)
def test_a_skip_is_a_failure(tmp_path: Path, text: str) -> None:
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\n")
    smi.chmod(0o755)
    code, said = run(tmp_path, {"test_a.py": text}, path=str(smi.parent))
    assert code in {1, 2}, said
    assert "only tests marked gpu may be skipped" in said.lower()


def test_gpu_tests_are_skipped_loudly_where_there_is_no_gpu(tmp_path: Path) -> None:
    code, said = run(tmp_path, {"test_a.py": ONE, "test_g.py": GPU})
    assert code == 0, said
    assert "2 collected = 1 run + 1 gpu" in said
    assert "1 gpu tests NOT RUN" in said


@pytest.mark.slow
def test_tests_are_counted_where_workers_run_them_too(tmp_path: Path) -> None:
    files = {"test_a.py": ONE, "test_b.py": ONE.replace("pass", "assert {}"), "test_g.py": GPU}
    code, said = run(tmp_path, files, "--whole", "-n", "2")
    assert code == 1, said
    assert "3 collected = 2 run + 1 gpu" in said
    code, said = run(tmp_path, {"test_b.py": "import os\ndef test_one():\n    os._exit(1)\n"}, "-n", "2")
    assert code == 1, said


def test_an_expected_failure_that_passes_is_a_failure(tmp_path: Path) -> None:
    text = "import pytest\n@pytest.mark.xfail(reason='upstream')\ndef test_a():\n    assert {}\n"
    expected, said = run(tmp_path, {"test_a.py": text.format("False")})
    assert (expected, "1 collected = 1 run + 0 gpu" in said) == (0, True), said
    assert run(tmp_path, {"test_a.py": text.format("True")})[0] == 1


def test_collected_tests_that_do_not_run_are_a_failure(tmp_path: Path) -> None:
    stop = (
        "import pytest\ndef test_a():\n    pass\ndef test_b(request):\n    request.session.shouldstop = 'x'\n"
    )
    files = {"test_a.py": stop, "test_z.py": ONE}
    code, said = run(tmp_path, files, "--whole")
    assert code != 0, said
    assert "1 tests were collected and then not run" in said


def test_the_cheap_parts_come_first(tmp_path: Path) -> None:
    full = "import pytest\n@pytest.mark.full\ndef test_full():\n    pass\n"
    files = {"container/test_a.py": full, "container/test_b.py": ONE, "unit/test_c.py": ONE, "test_g.py": GPU}
    code, said = run(tmp_path, files, "--import-mode=importlib")
    assert code == 0, said
    lines = [line.partition("::")[0] for line in said.splitlines() if "::test_" in line and "%]" in line]
    assert lines == ["unit/test_c.py", "container/test_b.py", "container/test_a.py", "test_g.py"]


def test_no_folder_with_tests_is_passed_over(pytestconfig: pytest.Config) -> None:
    """Pytest passes folders over by name: `build` was one, and with it all tests of podkiln/build."""
    patterns = pytestconfig.getini("norecursedirs")
    files = [path.relative_to(pytestconfig.rootpath) for path in Path(__file__).parents[1].rglob("test_*.py")]
    passed_over = [
        str(path) for path in files for part in path.parts[:-1] for each in patterns if fnmatch(part, each)
    ]
    assert len(files) > 200
    assert passed_over == []
