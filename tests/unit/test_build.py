"""build.py makes .venv, repairs it, and becomes the command in it, with the standard library alone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import build

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
MAIN = "import os, sys\nprint(sys.argv[1:], os.getcwd(), sys.prefix)\n"


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a command of its own and nothing to install; its path has a space."""
    root = tmp_path / "my checkout"
    (root / "podkiln").mkdir(parents=True)
    shutil.copy(ROOT / "build.py", root)
    (root / "podkiln" / "__init__.py").touch()
    (root / "podkiln" / "__main__.py").write_text(MAIN)
    for name in (build.RUN, build.DEVELOP):
        (root / name).write_text("# none\n")
    monkeypatch.setattr(build, "ROOT", root)
    monkeypatch.setattr(build, "VENV", root / ".venv")
    return root


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps of the set-up, which are only played."""
    done: list[str] = []

    def call(argv: list[str], _failure: str) -> None:
        step = "venv" if argv[1:3] == ["-m", "venv"] else Path(argv[-1]).name
        done.append(step)
        if step == "venv":
            (build.VENV / "bin").mkdir(parents=True)
            (build.VENV / "bin" / "python").symlink_to(sys.executable)

    monkeypatch.setattr(build, "call", call)
    return done


def replace_python(target: str | None) -> None:
    python = build.VENV / "bin" / "python"
    python.unlink()
    if target:
        python.symlink_to(target)


def rewrite_stamp(text: str | None) -> None:
    stamp = build.VENV / "podkiln-stamp"
    stamp.unlink()
    if text is not None:
        stamp.write_text(text)


@pytest.mark.parametrize(
    ("damage", "made_anew"),
    [
        pytest.param(lambda: None, False, id="none"),
        pytest.param(lambda: shutil.rmtree(build.VENV), True, id="no .venv"),
        pytest.param(lambda: replace_python(None), True, id="no bin/python"),
        pytest.param(lambda: replace_python("/no/such/python"), True, id="its Python was removed"),
        pytest.param(lambda: rewrite_stamp(None), True, id="pip was interrupted"),
        pytest.param(lambda: rewrite_stamp("requirements.txt 1 3.9 /usr\n"), True, id="of another Python"),
        pytest.param(
            lambda: (build.ROOT / build.RUN).write_text("# more\n"), True, id="of other requirements"
        ),
    ],
)
def test_what_does_not_fit_is_made_anew(
    damage: Callable[[], object], made_anew: bool, house: Path, calls: list[str]
) -> None:
    build.ensure()
    assert calls == ["venv", "requirements.txt"]
    calls.clear()
    damage()
    build.ensure()
    assert calls == (["venv", "requirements.txt"] if made_anew else [])
    assert build.fits(build.RUN)


def test_development_tools_are_added_and_then_enough(house: Path, calls: list[str]) -> None:
    build.ensure()
    build.ensure(build.DEVELOP)
    build.ensure()
    assert calls == ["venv", "requirements.txt", "requirements-dev.txt"]


def test_two_first_runs_make_one_environment(house: Path, calls: list[str]) -> None:
    runs = [threading.Thread(target=build.ensure) for _ in range(2)]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    assert calls == ["venv", "requirements.txt"]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("ensurepip is not available", r"It failed: its venv module is not there; .*python3-venv\."),
        (
            "WARNING: Retrying after connection broken by 'x'",
            r"It failed: no package index can be reached; .*\.",
        ),
        ("OSError: [Errno 28] No space left on device", r"It failed: the disk is full\."),
        ("something else", r"something else\npodkiln: It failed \(see above\)\."),
    ],
)
def test_a_step_that_fails_is_one_sentence(
    said: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        build.call([sys.executable, "-c", f"import sys; sys.exit({said!r})"], "It failed")
    assert end.value.code == 1
    assert re.search(f"{sentence}$", capsys.readouterr().err.strip())


def test_a_step_that_takes_long_tells_what_it_is_doing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "SILENCE", 0.1)
    said = "Collecting jinja2==3.1.6 (from -r requirements.txt)\nWARNING: no"
    build.call([sys.executable, "-uc", f"import time; print({said!r}); time.sleep(0.5)"], "It failed")
    assert "podkiln: .venv: 0 s, Collecting jinja2==3.1.6\n" in capsys.readouterr().err


def test_a_failed_addition_leaves_what_was_usable(
    house: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build.ensure()

    def fail(_argv: list[str], _failure: str) -> None:
        raise SystemExit(1)

    monkeypatch.setattr(build, "call", fail)
    with pytest.raises(SystemExit):
        build.ensure(build.DEVELOP)
    assert build.fits(build.RUN)


@pytest.mark.slow
def test_it_becomes_the_command_from_anywhere(house: Path, tmp_path: Path) -> None:
    """Through a symlink, from a folder with modules of misleading names, in a path with a space."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("podkiln", "logging", "json"):
        (elsewhere / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    (tmp_path / "link.py").symlink_to(house / "build.py")
    own = {**os.environ, "PIP_USER": "1"}
    argv = [sys.executable, str(tmp_path / "link.py"), "plan", "--variant", "a b"]
    done = subprocess.run(argv, cwd=elsewhere, capture_output=True, text=True, check=False, env=own)
    assert done.stdout == f"{['plan', '--variant', 'a b']} {elsewhere} {house / '.venv'}\n", done.stderr
    assert begun(done.stderr) == ["podkiln: making .venv (once)"]


BROKEN = """
import pathlib, sys
def main(arguments):
    if (pathlib.Path(sys.prefix) / "broken").exists():
        raise ModuleNotFoundError("No module named 'rich'", name="rich.progress")
    print(arguments)
    return 0
"""


def real_command(house: Path) -> None:
    """Give the checkout podkiln's own beginning, a short command line, and an environment to damage."""
    modules = ("podkiln/__main__.py", "podkiln/errors.py", "scripts/pod/__init__.py", "scripts/pod/errors.py")
    for name in modules:
        (house / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, house / name)
    for name in ("podkiln/util", "scripts/pod/util"):
        shutil.copytree(ROOT / name, house / name)
    (house / "podkiln" / "cli.py").write_text(BROKEN)
    venv = house / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (venv / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    (venv / "podkiln-stamp").write_text(build.stamp(build.RUN))


def run_in(house: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "PYTHONPATH": f"{house}:{house / 'scripts'}"}
    line = [*argv, "plan", "--variant", "a b"]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=own)


def begun(said: str) -> list[str]:
    """Return the lines without those that come every two seconds."""
    return [line for line in said.splitlines() if not line.startswith("podkiln: .venv: ")]


@pytest.mark.slow
def test_a_package_that_is_gone_is_noticed_and_the_environment_made_anew_once(house: Path) -> None:
    real_command(house)
    whole = (0, "['plan', '--variant', 'a b']\n")
    done = run_in(house, sys.executable, str(house / "build.py"))
    assert (done.returncode, done.stdout, done.stderr) == (*whole, "")
    (house / ".venv" / "broken").touch()
    done = run_in(house, sys.executable, str(house / "build.py"))
    assert (done.returncode, done.stdout) == whole
    assert begun(done.stderr) == [
        "podkiln: a package in .venv is missing or damaged",
        "podkiln: making .venv (once)",
    ]


def test_what_is_missing_even_then_is_one_sentence(house: Path) -> None:
    """As build.py starts it after a repair."""
    real_command(house)
    (house / ".venv" / "broken").touch()
    done = run_in(house, str(house / ".venv" / "bin" / "python"), "-P", "-m", "podkiln")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "podkiln: rich cannot be imported: No module named 'rich'.",
        "    rm -r .venv and try again.",
    ]


def test_what_another_run_repaired_is_left_alone(house: Path, calls: list[str]) -> None:
    build.ensure()
    calls.clear()
    build.repair("1")
    assert calls == []
    assert build.fits(build.RUN)


def test_a_repair_keeps_the_tools_of_developers(house: Path, calls: list[str]) -> None:
    build.ensure(build.DEVELOP)
    calls.clear()
    build.repair(str((build.VENV / "podkiln-stamp").stat().st_mtime_ns))
    assert calls == ["venv", "requirements-dev.txt"]


def test_only_the_standard_library_is_needed() -> None:
    argv = [sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({str(ROOT / 'build.py')!r})"]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0


INTERRUPTED = "podkiln: Interrupted; nothing half-made was left behind.\n"


def interrupt_early() -> None:
    """Ctrl-C before Python has started: it is pending then."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # what runs the tests may ignore it
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.kill(os.getpid(), signal.SIGINT)


def interrupted_by_import(folder: Path, module: str) -> dict[str, str]:
    """Return the environment in which an import of this module is when Ctrl-C is pressed."""
    folder.mkdir()
    (folder / f"{module}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n" * 2)
    return {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}:{ROOT / 'scripts'}"}


@pytest.mark.parametrize("start", [["build.py"], ["-P", "-m", "podkiln"]], ids=["build.py", "podkiln"])
def test_ctrl_c_while_python_starts_is_one_sentence(start: list[str]) -> None:
    """build.py blocks SIGINT, so that it is pending until podkiln asks for it; both must ask."""
    own = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}
    line = [sys.executable, *start, "models"]
    done = subprocess.run(
        line, cwd=ROOT, capture_output=True, text=True, check=False, env=own, preexec_fn=interrupt_early
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", INTERRUPTED)


@pytest.mark.parametrize(
    ("start", "module"),
    [(["build.py"], "hashlib"), (["build.py"], "shutil"), (["-P", "-m", "podkiln"], "click")],
    ids=["build.py at once", "build.py", "podkiln"],
)
def test_ctrl_c_during_imports_is_one_sentence(start: list[str], module: str, tmp_path: Path) -> None:
    own = interrupted_by_import(tmp_path / "early", module)
    done = subprocess.run(
        [sys.executable, *start, "models"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=own,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", INTERRUPTED)


def test_python_starts_with_ctrl_c_blocked(house: Path, calls: list[str]) -> None:
    """It would answer one with a fatal error of its own."""
    build.ensure()
    blocked = "import signal\nprint(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
    (house / "podkiln" / "__main__.py").write_text(blocked)
    done = run_in(house, sys.executable, str(house / "build.py"))
    assert (done.stdout, done.stderr) == ("True\n", "")
