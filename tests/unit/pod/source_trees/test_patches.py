"""Patches apply at their own lines or not at all; the build and the pod apply them alike."""

from __future__ import annotations

import subprocess
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
    "another file": (TWO_HUNKS.replace("/f", "/g"), r"changes g, and there is no such file"),
    "a file outside": (
        TWO_HUNKS.replace("/f", "/../f"),
        r"changes '../f', which is no path of a file in the",
    ),
    "an absolute name": (TWO_HUNKS.replace("/f", "//opt/f"), r"changes '/opt/f', which is no path of a file"),
    "no folder before a name": ("--- f\n+++ f\n@@ -1 +1 @@\n-one\n+1\n", r"changes '', which is no path"),
    "a name of control characters": (TWO_HUNKS.replace("/f", "/\x1b[31m"), r"changes '\?\[31m', which is no"),
    "a name that no disk takes": (
        TWO_HUNKS.replace("/f", "/" + "f" * 300),
        r"changes 'f{100}…', which is no",
    ),
    "a path that no disk takes": (TWO_HUNKS.replace("/f", "/f" * 600), r"changes '(f/){50}…', which is no"),
    "a link": (TWO_HUNKS.replace("/f", "/link"), r"changes link, and link is a link"),
    "a file behind a link": (TWO_HUNKS.replace("/f", "/out/f"), r"changes out/f, and out is a link"),
    "a file below a file": (TWO_HUNKS.replace("/f", "/f/f"), r"changes f/f, and there is no such file"),
    "a folder": (TWO_HUNKS.replace("/f", "/folder"), r"changes folder, and there is no such file"),
    "no hunk": ("--- a/f\n+++ b/f\n", r"has no hunk for f"),
    "a number without end": (TWO_HUNKS.replace("-1,2", "-" + "1" * 5000), r"a number of more than 9 digits"),
    "a line far away": (TWO_HUNKS.replace("-1,2", "-999999999,2"), r"does not apply to f:999999999"),
    "other bytes than text": (TWO_HUNKS.replace("FOUR", "F\udce9"), r"is no UTF-8 text: its line 11"),
    "what is no patch in size": (TWO_HUNKS + "#" * patches.LARGEST, r"is larger than 1 MiB"),
    "no patch": ("hello\n", r"is no unified diff"),
    "a new name": (TWO_HUNKS.replace("b/f", "b/g"), r"makes g of f: files are changed, and neither"),
    "an end within a hunk": (TWO_HUNKS.removesuffix("+FOUR\n"), r"not as long as it says"),
    "a hunk that is longer": (TWO_HUNKS.replace("-1,2 +1,3", "-1,3 +1,4"), r"not as long as it says"),
    "a hunk that is shorter": (f"{TWO_HUNKS} five\n", r"belongs to no hunk"),
    "a second file that does not fit": (
        f"{TWO_HUNKS}--- a/g\n+++ b/g\n@@ -1 +1 @@\n-no\n+yes\n",
        r"changes g, and there is no such file",
    ),
    "more after an end without a newline": (
        "--- a/bare\n+++ b/bare\n@@ -1 +1,2 @@\n one\n+two\n",
        r"does not apply to bare: it ends without a newline",
    ),
    "something else in it": (TWO_HUNKS.replace("@@ -1,2 +1,3 @@\n", "hello\n"), r"belongs to no hunk"),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "f").write_text("one\ntwo\nthree\nfour\n")
    (tmp_path / "bare").write_text("one")
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "out").symlink_to(tmp_path)
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_all_hunks_are_applied(tree: Path) -> None:
    patches.apply(tree, TWO_HUNKS.encode())
    assert (tree / "f").read_text() == "one\none and a half\ntwo\nthree\nFOUR\n"


def test_lines_keep_their_ends(tree: Path) -> None:
    (tree / "f").write_bytes(b"one\r\ntwo\r\nthree\r\nfour")
    patches.apply(tree, TWO_HUNKS.encode())
    assert (tree / "f").read_bytes() == b"one\r\none and a half\ntwo\r\nthree\r\nFOUR\n"


# What a file had, and has afterwards: `diff -U0` and git's own output make the patch.
ODD: dict[str, tuple[str, str]] = {
    "an insertion at the beginning": ("a\nb\n", "new\na\nb\n"),
    "an insertion in the middle": ("a\nb\n", "a\nnew\nb\n"),
    "an insertion at the end": ("a\nb\n", "a\nb\nnew\n"),
    "a deletion": ("a\nb\nc\n", "a\nc\n"),
    "all of it": ("a\nb\n", ""),
    "into nothing": ("", "a\n"),
    "lines like a header of files": ("-- q\nb\n", "++ x\nb\n-- y\n"),
    "lines like a header of hunks": ("a\n@ -1 @@\n", "a\n@ -2 @@\n@@ -1 +1 @@\n"),
    "an end without a newline": ("a\nb", "a\nc"),
    "a carriage return within": ("a\rb\nc\n", "a\rb\nd\n"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("lines", ["-U0", "-U3"])
def test_what_diff_makes_is_what_comes_out(tmp_path: Path, name: str, lines: str) -> None:
    before, after = (text.encode() for text in ODD[name])
    for folder, content in (("a", before), ("b", after)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "f").write_bytes(content)
    words = ["git", "diff", "--no-index", "--src-prefix=", "--dst-prefix=", lines, "a/f", "b/f"]
    patch = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False).stdout
    patches.apply(tmp_path / "a", patch + b"-- \n2.47.0\n")
    assert (tmp_path / "a" / "f").read_bytes() == after


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_and_changes_nothing(tree: Path, name: str) -> None:
    patch, expected = REFUSED[name]
    before = (tree / "f").read_text()
    with pytest.raises(PatchError, match=expected):
        patches.apply(tree, patch.encode(errors="surrogateescape"))
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
