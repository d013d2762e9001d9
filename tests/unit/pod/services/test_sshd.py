"""sshd's host key: the same for as long as the volume lasts, and never one that others may read."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pod.services import sshd
from pod.services.config import Ssh

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "ssh_host_ed25519_key"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_it_is_made_once_and_kept(tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "volume" / ".podkiln" / "ssh"
    key, first = sshd.host_key(kept, own)
    assert key == kept / NAME
    assert (mode(kept), mode(key)) == (0o700, 0o600)
    shown = subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True).stdout
    assert shown.split()[1:] == [first, "podkiln", "(ED25519)"]
    assert sshd.host_key(kept, own) == (key, first)
    assert [path.name for path in kept.iterdir()] == [NAME]
    assert capsys.readouterr().err == ""


def test_a_key_that_others_may_read_is_closed(tmp_path: Path, own: Path) -> None:
    _, first = sshd.host_key(tmp_path / "v", own)
    (tmp_path / "v").chmod(0o755)
    (tmp_path / "v" / NAME).chmod(0o644)
    key, again = sshd.host_key(tmp_path / "v", own)
    assert (mode(key.parent), mode(key), again) == (0o700, 0o600, first)


@pytest.mark.parametrize("damage", ["", "half"])
def test_a_damaged_key_is_made_anew(damage: str, tmp_path: Path, own: Path) -> None:
    key, first = sshd.host_key(tmp_path / "v", own)
    key.write_text(key.read_text()[:100] if damage else "")
    again, second = sshd.host_key(tmp_path / "v", own)
    assert again == key
    assert second not in (None, first)
    assert sshd.host_key(tmp_path / "v", own) == (key, second)


def test_of_two_pods_that_make_one_at_once_the_first_wins(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other: list[str] = []
    made: Callable[..., str] = sshd._keygen

    def keygen(*arguments: str, check: bool = True) -> str:
        if "-t" in arguments and not other:
            other.append("")
            other[0] = sshd.host_key(tmp_path / "v", own)[1]
        return made(*arguments, check=check)

    monkeypatch.setattr(sshd, "_keygen", keygen)
    assert sshd.host_key(tmp_path / "v", own) == (tmp_path / "v" / NAME, other[0])
    assert [path.name for path in (tmp_path / "v").iterdir()] == [NAME]


def test_a_volume_without_modes_gets_no_key(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sshd, "closed", lambda path: path.parent == own)
    key, print_ = sshd.host_key(tmp_path / "v", own)
    assert key == own / NAME
    assert print_.startswith("SHA256:")
    assert list((tmp_path / "v").iterdir()) == []
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "v cannot keep a file private, so sshd's host key lasts as long as this" in sentence


def test_a_volume_that_cannot_be_written_costs_one_sentence(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    key, _ = sshd.host_key(tmp_path / "file" / "ssh", own)
    assert key == own / NAME
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "ssh cannot be written, so sshd's host key lasts" in sentence


def test_what_it_is_started_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshd, "_EMPTY", tmp_path / "empty")
    service = sshd.prepare(Ssh(2222, ("a", "b")), Path("/root"), tmp_path / "run", tmp_path / "volume")
    authorized = tmp_path / "run" / "ssh" / "authorized_keys"
    assert authorized.read_text() == "a\nb\n"
    assert (mode(authorized), mode(authorized.parent)) == (0o600, 0o700)
    assert service.argv[:8] == (
        *("/usr/sbin/sshd", "-D", "-e", "-f", "/root/access/sshd_config", "-p", "2222"),
        "-h",
    )
    assert "sshd takes 2 keys on port 2222; its own fingerprint is SHA256:" in service.welcome
    assert "HF_TOKEN" not in service.environ
