"""The pod's variables for shells of ssh: all but the secrets of the doors, in a file of root's alone."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from pod.services import shell_env

if TYPE_CHECKING:
    from pathlib import Path

ODD = 'a\'b "c" $HOME `id` \\ é\nnext'


def sourced(run: Path, **environ: str) -> dict[str, str]:
    """Return the variables of a shell that has read the file."""
    script = f'. "{run / shell_env.NAME}" && env -0'
    done = subprocess.run(["bash", "-euc", script], env=environ, capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


def test_a_shell_gets_them_as_they_are(tmp_path: Path) -> None:
    shell_env.write(
        tmp_path, {"HF_TOKEN": ODD, "RUNPOD_POD_ID": "abc", "PATH": "/opt/venv/bin:/usr/bin:/bin"}
    )
    seen = sourced(tmp_path, PATH="/usr/bin:/bin")
    assert seen["HF_TOKEN"] == ODD
    assert seen["RUNPOD_POD_ID"] == "abc"
    assert seen["PATH"] == "/opt/venv/bin:/usr/bin:/bin"


def test_what_a_shell_has_stays(tmp_path: Path) -> None:
    shell_env.write(tmp_path, {"MODELS": "all", "EMPTY": "full"})
    seen = sourced(tmp_path, PATH="/usr/bin:/bin", MODELS="none", EMPTY="")
    assert (seen["MODELS"], seen["EMPTY"]) == ("none", "")


def test_what_is_a_shells_own_or_a_doors_is_left_out(tmp_path: Path) -> None:
    names = ("WEB_PASSWORD", "JUPYTER_TOKEN", "JUPYTER_PASSWORD", "HOME", "TERM", "PWD", "PUBLIC_KEY")
    shell_env.write(
        tmp_path, {**dict.fromkeys(names, "canary"), "BASH_FUNC_x%%": "() { canary; }", "a b": "canary"}
    )
    assert "canary" not in (tmp_path / shell_env.NAME).read_text()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    (tmp_path / shell_env.NAME).touch(0o644)
    shell_env.write(tmp_path, {"HF_TOKEN": "x"})
    assert (tmp_path / shell_env.NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [shell_env.NAME]
