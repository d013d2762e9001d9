"""A repository is asked and fetched from; neither it nor the working folder says how."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from podkiln.errors import SourceError
from podkiln.lock.resolve import upgrades

if TYPE_CHECKING:
    from pathlib import Path

REPO = "https://none.invalid/ComfyUI"


def git(folder: Path, *arguments: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    argv = ["git", "-C", str(folder), "-c", "user.name=T", "-c", "user.email=t@example.com", *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=own).stdout.strip()


def configured(monkeypatch: pytest.MonkeyPatch, *rows: tuple[str, str]) -> None:
    """Have git take these as a person's own config."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(rows)))
    for number, (key, value) in enumerate(rows):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)


def test_the_folder_that_podkiln_is_called_in_names_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "given"
    git(tmp_path, "init", "--quiet", str(here))
    git(here, "config", f"url.ext::sh -c touch% {tmp_path}/ran #.insteadOf", REPO)
    git(here, "config", "protocol.ext.allow", "always")
    monkeypatch.chdir(here)
    with pytest.raises(SourceError, match="could not be asked"):
        upgrades.releases(REPO)
    monkeypatch.setenv("GIT_DIR", str(here / ".git"))  # as a hook of that repository would have it
    with pytest.raises(SourceError, match="could not be asked"):
        upgrades.releases(REPO)
    assert not (tmp_path / "ran").exists()


def test_what_is_fetched_has_no_programs_run_on_it_and_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, to = tmp_path / "there", tmp_path / "to"
    git(tmp_path, "init", "--quiet", str(there))
    (there / ".gitattributes").write_text("* filter=mine\n")
    (there / "plain").write_text("content")
    (there / "link").symlink_to("/etc/passwd")
    git(there, "add", ".")
    git(there, "commit", "--quiet", "--message=one")
    commit = git(there, "rev-parse", "HEAD")
    configured(
        monkeypatch,
        (f"url.{there}.insteadOf", REPO),
        ("filter.mine.smudge", f"tee {tmp_path}/ran"),
        ("uploadpack.allowAnySHA1InWant", "true"),
    )
    upgrades.fetch(REPO, commit, to, [".gitattributes", "plain", "link"])
    assert (to / "plain").read_text() == "content"
    assert not (to / "link").is_symlink()
    assert not (tmp_path / "ran").exists()
