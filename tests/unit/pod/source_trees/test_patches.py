"""Patches apply at their own lines or not at all; the build and the pod apply them alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pod.source_trees import patches
from pod.source_trees.patches import PatchError

if TYPE_CHECKING:
    from pathlib import Path

TWO_HUNKS = """\
diff --git a/f b/f
index 1..2 100644
--- a/f
+++ b/f
@@ -1,2 +1,3 @@
 one
+one and a half
 two
@@ -4 +5 @@ def x():
-four
+FOUR
"""
REFUSED = {
    "another line": (TWO_HUNKS.replace(" two", " zwei"), r"does not apply to f:2"),
    "a line that is not there": (TWO_HUNKS.replace("-4 +5", "-5 +6"), r"does not apply to f:5"),
    "hunks in disorder": (TWO_HUNKS.replace("-4 +5", "-1 +5"), r"out of order"),
    "another file": (TWO_HUNKS.replace("a/f", "a/g"), r"changes g, and there is no such file"),
    "a file outside": (TWO_HUNKS.replace("a/f", "a/../f"), r"changes ../f, and there is no such file"),
    "a link": (TWO_HUNKS.replace("a/f", "a/link"), r"changes link, and there is no such file"),
    "no patch": ("hello\n", r"is no unified diff"),
    "something else in it": (TWO_HUNKS.replace("@@ -1,2 +1,3 @@\n", "hello\n"), r"belongs to no hunk"),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "f").write_text("one\ntwo\nthree\nfour\n")
    (tmp_path / "link").symlink_to("f")
    return tmp_path


def test_all_hunks_are_applied(tree: Path) -> None:
    patches.apply(tree, TWO_HUNKS.encode())
    assert (tree / "f").read_text() == "one\none and a half\ntwo\nthree\nFOUR\n"


def test_lines_keep_their_ends(tree: Path) -> None:
    (tree / "f").write_bytes(b"one\r\ntwo\r\nthree\r\nfour")
    patches.apply(tree, TWO_HUNKS.encode())
    assert (tree / "f").read_bytes() == b"one\r\none and a half\ntwo\r\nthree\r\nFOUR\n"


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_and_changes_nothing(tree: Path, name: str) -> None:
    patch, expected = REFUSED[name]
    before = (tree / "f").read_text()
    with pytest.raises(PatchError, match=expected):
        patches.apply(tree, patch.encode())
    assert (tree / "f").read_text() == before


def test_as_a_program_of_the_build_it_takes_them_in_order(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "02.patch").write_text("--- a/f\n+++ b/f\n@@ -5 +5 @@\n-FOUR\n+4\n")
    (folder / "01.patch").write_text(TWO_HUNKS)
    assert patches.main(["mine", str(tree), str(folder)]) == 0
    assert (tree / "f").read_text().endswith("three\n4\n")
    assert patches.main(["mine", str(tree), str(folder)]) == 1
    assert "The custom node mine: its patch 01.patch does not apply to f:2." in capsys.readouterr().err
