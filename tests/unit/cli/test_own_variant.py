"""What a first-time user meets: a variant of one's own, before and after its lock, and mistakes in it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import descriptions
import pytest

from podkiln.cli import main
from podkiln.config import document
from podkiln.errors import DescriptionError, SourceError
from podkiln.lock.resolve import relock
from podkiln.util.git_tree import tree_id

if TYPE_CHECKING:
    from pathlib import Path

OWN = """
- url: https://example.com/own.safetensors
  folder: checkpoints
  sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
"""


def own_variant(folder: Path, more: str = "") -> Path:
    """A variant whose one model is its own, from a URL, and on by default."""
    text = descriptions.variant(mine=descriptions.model(OWN + more))
    text = text.replace("offer: [sdxl-base]", "offer: [], default: [mine]")
    return descriptions.write(folder / "studio.yaml", text)


def test_a_size_that_is_not_known_is_not_counted_as_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = str(own_variant(tmp_path))
    assert main(["models", "--variant", own]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"mine .* unknown  .*; not ready\n    1 of 1 files unresolved: no exact size", listed)
    assert "A size with > before it, or unknown, lacks files whose size is not known" in listed
    assert main(["plan", "--variant", own]) == 0
    planned = capsys.readouterr().out
    assert "fetched at the first start by default: unknown" in planned
    assert "container disk of a pod without a volume: more than 19 GB" in planned
    assert "the size of mine: checkpoints/own.safetensors is not known" in planned


def test_only_what_the_lock_holds_is_locked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = str(own_variant(tmp_path, "  size: 10\n"))
    assert main(["models", "--variant", own]) == 0
    assert "not locked yet" in capsys.readouterr().out
    assert main(["lock", "--check", "--variant", own]) == 4
    lock = tmp_path / "studio.locks" / "weights.json"
    said = capsys.readouterr().err
    assert f"{lock}: mine: checkpoints/own.safetensors is described, and not locked." in said
    lock.parent.mkdir()
    entry = {
        "destination": "checkpoints/own.safetensors",
        "source": "https://example.com/own.safetensors",
        "revision": None,
        "size": 10,
        "sha256": descriptions.SHA,
    }
    lock.write_text(json.dumps({"schema_version": 1, "models": {"mine": [entry]}}))
    assert main(["models", "--variant", own]) == 0
    assert "; ready" in capsys.readouterr().out
    assert main(["lock", "--check", "--variant", own]) == 0


def flags(line: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["flags", "--vram-mib", "8192", *line])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_flag_whose_package_the_image_lacks_is_refused_or_said_to_depend(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sage = "--args=--use-sage-attention"
    code, _, said = flags([sage, "--variant", "lazy"], capsys)
    assert code == 2
    assert "--use-sage-attention needs the Python package sageattention" in said
    assert "with exit code 64" in said
    code, out, said = flags([sage], capsys)
    assert code == 0
    assert "--use-sage-attention" in out
    assert "a pod whose image and volume lack it stops with exit code 64" in said
    assert "sageattention" not in flags([], capsys)[2]
    assert flags(["--args=--use-ck-attention", "--variant", "lazy"], capsys)[0] == 0


@pytest.mark.parametrize(("port", "whose"), [("22", "sshd"), ("8888", "JupyterLab")])
def test_the_port_of_another_program_is_refused(
    port: str, whose: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = flags([f"--args=--port {port}"], capsys)
    assert (code, f"{port} is the port of {whose}" in said) == (2, True)


def test_arguments_are_printed_as_a_shell_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = flags(["--args=--output-directory '/a b'"], capsys)
    assert "--output-directory '/a b'" in out


def test_a_quiet_dry_run_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--variant", "lazy", "--dry-run", "-q"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("no_engine")
def test_a_malformed_hub_is_a_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "foo")
    assert main(["lock", "--variant", str(own_variant(tmp_path))]) == 2
    assert capsys.readouterr().err.endswith(": correct it, or unset it.\n")


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize(
    ("resolved", "unresolved", "says"),
    [
        (1, 0, "1 weight is locked, 0 are not resolved yet."),
        (2, 1, "2 weights are locked, 1 is not resolved"),
    ],
)
def test_weights_are_counted_in_english(
    resolved: int,
    unresolved: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = relock.RelockResult((), resolved, unresolved, (), ())
    monkeypatch.setattr(relock, "relock", lambda *_: found)
    assert main(["lock"]) == 0
    assert says in capsys.readouterr().err


def test_an_error_of_the_system_comes_without_number_and_with_the_path_once(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError) as refused:
        document.load(tmp_path)
    assert str(refused.value) == f"{tmp_path}: cannot be read: Is a directory."
    with pytest.raises(SourceError) as unreadable:
        tree_id(tmp_path / "none")
    assert str(unreadable.value) == f"{tmp_path / 'none'} cannot be read: No such file or directory."
