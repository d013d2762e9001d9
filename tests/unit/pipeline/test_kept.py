"""What lies in the cache folder: its size, and that `clean` takes what can be made again and nothing else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from podkiln.build.kept_export import KeptExport
from podkiln.cli import main
from podkiln.lock import runtimes
from podkiln.pipeline import build, kept
from podkiln.util import cache_folder, lock_file

if TYPE_CHECKING:
    from pathlib import Path

MANY = 3_000_000  # bytes
GONE = sum(not kind.lasting for kind in kept.KINDS)


def freed(told: str) -> float:
    """Return the MB that are said to be freed in all; folders take some, too."""
    (line,) = (line for line in told.splitlines() if line.endswith("  freed"))
    return float(line.split()[0])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with something of each kind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = cache_folder.path()
    for kind in kept.KINDS:
        if kind.name != runtimes.FILE:
            (folder / kind.name / "inner").mkdir(parents=True)
            (folder / kind.name / "inner" / "file").write_bytes(b"x" * MANY)
    (folder / runtimes.FILE).write_text("{}")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != lock_file.NAME}


def test_what_can_be_made_again_goes_and_what_decides_digests_and_pushes_stays(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clean"]) == 0
    assert names(cache) == {"base", "runtimes.json"}
    told = capsys.readouterr().out
    rows = [line.strip() for line in told.splitlines()]
    assert f"3.0 MB  {cache}/exports: layers as BuildKit exports them, by builder" in rows
    assert freed(told) == pytest.approx(GONE * MANY / 1e6, rel=0.02)
    assert f"3.0 MB  {cache}/base stays: the base of --base bootstrap (--all removes it too)" in rows
    assert main(["clean", "--all"]) == 0
    assert names(cache) == set()
    capsys.readouterr()
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == f"podkiln keeps nothing in {cache}.\n"


def test_what_images_share_is_not_said_to_be_freed(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.link(cache / "layers/inner/file", tmp_path / "image-has-it")
    os.link(cache / "exports/inner/file", cache / "exports/inner/twice")
    (layers,) = (each for each in kept.usage() if each.kind.name == "layers")
    assert (layers.size > MANY, layers.freed < 100_000) == (True, True)
    assert main(["clean"]) == 0
    told = capsys.readouterr().out
    assert "layers as they are in images (3.0 MB more stay on the disk" in told
    assert freed(told) == pytest.approx((GONE - 1) * MANY / 1e6, rel=0.02)


def test_a_link_to_a_base_elsewhere_goes_alone(cache: Path, tmp_path: Path) -> None:
    (cache / "base").rename(tmp_path / "elsewhere")
    (cache / "base").symlink_to(tmp_path / "elsewhere")
    kept.clean(everything=True)
    assert names(cache) == set()
    assert (tmp_path / "elsewhere/inner/file").exists()


@pytest.mark.parametrize("hold", ["export", "folder"])
def test_while_a_build_runs_nothing_is_removed(
    cache: Path, hold: str, capsys: pytest.CaptureFixture[str]
) -> None:
    held = KeptExport.hold(cache / "exports", "mine") if hold == "export" else cache_folder.in_use()
    with held:
        before = names(cache)
        assert main(["clean", "--all"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[0] == f"podkiln: A build is using {cache}, so nothing was removed."
    assert names(cache) == before


def test_every_build_holds_the_cache_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []

    def built(*_: object) -> object:
        codes.append(main(["clean"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "prepare_engine", lambda _: None)
    monkeypatch.setattr(build, "build_all", built)
    assert main(["--variant", "lazy", "--no-keep", "--out", str(tmp_path / "dist")]) == 130
    assert codes == [2]
    assert "so nothing was removed" in capsys.readouterr().err
    assert "layers" in names(cache)


def test_the_doctor_says_where_all_of_it_is_and_how_large(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    for kind in kept.KINDS:
        assert f"MB  {cache / kind.name}: {kind.what}\n" in told
    assert f"  {len(kept.KINDS[:-1]) * MANY / 1e6:.0f}." in next(
        line for line in told.splitlines() if line.endswith("  in all")
    )
    assert "free on that disk" in told
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["cache"]["path"]) == (1, str(cache))
    assert document["cache"]["free_bytes"] > 0
    assert set(document["cache"]["kinds"]) == {kind.name for kind in kept.KINDS}
    assert document["cache"]["kinds"]["exports"]["bytes"] == pytest.approx(MANY, rel=0.01)


def test_where_nothing_was_ever_kept_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    assert [main(["clean"]), main(["doctor"])] == [0, 0]
    assert capsys.readouterr().out.count("podkiln keeps nothing in ") == 2
    assert not (tmp_path / "none").exists()
