"""docs/how-to/another-comfyui-release.md, done as it says: by its own file and its own commands.

In the place of GitHub there is a repository with a small tree of our own, in that of PyPI a folder of wheels.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from comfyui_trees import cli_args, stocked, tree, with_folders

from podkiln import cli

PAGE = (Path(__file__).parents[3] / "docs/how-to/another-comfyui-release.md").read_text()
FOLDERS = ("diffusion_models", "clip_vision", "latent_upscale_models", "upscale_models")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GitHub and PyPI, for this release."""
    folder = tree(
        tmp_path / "upstream",
        "0.32.0",
        "foo\ntorch\n",
        cli_args=cli_args("--x"),
        folders=with_folders(*FOLDERS),
    )
    settings = {
        f"url.{folder}.insteadOf": "https://github.com/Comfy-Org/ComfyUI",
        "user.name": "Test",
        "user.email": "test@example.com",
    }
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(settings)))
    for number, (key, value) in enumerate(settings.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    for line in ("init --quiet", "add --all", "commit --quiet --message=0.32.0", "tag v0.32.0"):
        subprocess.run(["git", *line.split()], cwd=folder, check=True)
    index = stocked(tmp_path / "index")
    for key, value in index.environment.items():
        monkeypatch.setenv(key, value)
    return folder


@pytest.mark.usefixtures("upstream")
def test_the_how_to_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    studio = tmp_path / "studio"
    studio.mkdir()
    monkeypatch.chdir(studio)
    Path("older.yaml").write_text(block("yaml"))
    describe, plan, build = (shlex.split(line)[1:] for line in block("sh").splitlines())

    assert cli.main(plan) == 3  # not described yet: the hint is the next command of the page
    assert f"`{shlex.join(['./build.py', *describe]).replace('./older', 'older')}`" in capsys.readouterr().err

    assert cli.main(describe) == 0
    said = capsys.readouterr().out
    assert re.match(r"ComfyUI 0\.32\.0 \([0-9a-f]{40}\), against 0\.33\.0:\n", said)
    assert "\n  flag gone: --disable-cuda-graphs\n" in said
    rows = re.findall(r"^\| `([^`]+)` \| ", PAGE, re.MULTILINE)
    assert len(rows) == 4
    assert all(Path(row).exists() for row in rows)

    assert cli.main(plan) == 0
    assert "ComfyUI 0.32.0" in capsys.readouterr().out
    assert cli.main([*build, "--dry-run"]) == 0
