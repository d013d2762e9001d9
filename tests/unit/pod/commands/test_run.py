"""`run` starts ComfyUI with what `decide` chose, and before it loads what it need not wait for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pod.commands import run
from pod.errors import PodError

SCRIPTS = Path(__file__).parents[4] / "scripts"


def test_the_arguments_are_those_that_were_chosen(tmp_path: Path) -> None:
    (tmp_path / "comfyui.args").write_text("--output-directory\0/my out\0--cpu\0")
    assert run.chosen(str(tmp_path)) == ["--output-directory", "/my out", "--cpu"]
    (tmp_path / "comfyui.args").write_text("")
    assert run.chosen(str(tmp_path)) == []


def test_arguments_may_be_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "comfyui.args").write_bytes(b"caf\xe9\0a\r\nb\0")
    assert run.chosen(str(tmp_path)) == [os.fsdecode(b"caf\xe9"), "a\r\nb"]


def test_without_a_decision_nothing_is_started(tmp_path: Path) -> None:
    with pytest.raises(PodError, match=r"comfyui.args cannot be read \(No such file or directory\)"):
        run.main(["1", "8", "/bin/true"], {"PODKILN_RUN": str(tmp_path)})


def test_comfyui_is_not_kept_waiting_for_imports() -> None:
    """What is loaded before it is spawned delays every boot: http.client alone takes 20 ms."""
    program = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); "
        f"exec(open({str(SCRIPTS / '__main__.py')!r}).read(), {{'__name__': 'called'}}); "
        "import pod.commands.run; print(*sys.modules)"
    )
    argv = [sys.executable, "-I", "-S", "-c", program]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "http.client",
        "json",
        "pathlib",
        "ssl",
        "pod.supervisor.supervisor",
        "pod.supervisor.log_file",
        "pod.supervisor.boot_timeline",
        "pod.decision",
    }
    assert sorted(heavy & set(loaded)) == []
